//! Templates: the files of `sql/`, with `{{names}}` where the mapping comes in.

/// Puts the values in their places, in one pass: what a value holds is never taken for a place.
///
/// `{{tag}}` becomes a dollar quote that occurs in none of the values.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let tag = tag(values);
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template.trim_end();
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .expect("a place in our own template is closed");
        filled.push_str(before);
        let value = match name {
            "tag" => tag.as_str(),
            _ => {
                let named = values.iter().find(|(known, _)| *known == name);
                named.expect("every place of our own template has its value").1
            }
        };
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    filled.push('\n');
    filled
}

/// A dollar quote that no value can end.
fn tag(values: &[(&str, &str)]) -> String {
    let mut tag = "$hubsyncd$".to_owned();
    let mut count = 0;
    while values
        .iter()
        .any(|(_, value)| value.contains(tag.trim_end_matches('$')))
    {
        count += 1;
        tag = format!("$hubsyncd{count}$");
    }
    tag
}
