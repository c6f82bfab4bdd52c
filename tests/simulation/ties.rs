//! The oracle of links: those that rows lead to, those that people made, and no others.

use super::ledger::{PLAIN, Tie};
use super::model::{Model, Row};
use super::world::World;
use hubsyncd::sandbox::World as Portal;
use hubsyncd::sync::change::{Key, ObjectIndex};
use hubsyncd::sync::linking::Target;
use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, BTreeSet<String>>;

/// What is not as it should be about the links of a row's record `id`.
pub fn wrong(
    world: &World,
    model: &Model,
    portal: &Portal,
    object: ObjectIndex,
    key: &Key,
    row: &Row,
    id: &str,
) -> Option<String> {
    let declared = &model.mapping.objects[object];
    let mut targets: BTreeMap<&str, Labels> = BTreeMap::new();
    // Of a target that is not known yet, what was linked before stays.
    let mut allowed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (link, target) in declared.links.iter().zip(model.targets(object, row)) {
        let to = model.mapping.position(&link.to)?;
        let to_type = model.mapping.objects[to].object_type.as_str();
        let wanted = targets.entry(to_type).or_default();
        match target {
            Target::To(id) => {
                let labels = wanted.entry(id).or_default();
                labels.insert(PLAIN.to_owned());
                labels.extend(link.label.clone());
            }
            Target::Unknown => {
                let name = link.name();
                let ours = model
                    .links
                    .keys()
                    .filter(|(of, by, by_link, _)| (*of, by, by_link) == (object, key, &name));
                let ours = ours.map(|(.., to)| to.clone());
                allowed.entry(to_type).or_default().extend(ours);
            }
            Target::Nowhere => {}
        }
    }
    let exact = !world.scene.merges && row.chosen.is_none() && is_alone(model, object, key, id);
    let none = BTreeSet::new();
    for (to_type, wanted) in targets {
        let mut held = Labels::new();
        for link in portal.associations(&declared.object_type, id, to_type) {
            let labels = link.labels.into_iter().chain([PLAIN.to_owned()]);
            held.entry(link.to).or_default().extend(labels);
        }
        let lacks = |to: &String, labels: &BTreeSet<String>| !labels.is_subset(held.get(to).unwrap_or(&none));
        if let Some((to, labels)) = wanted.iter().find(|(to, labels)| lacks(to, labels)) {
            return Some(format!("is not linked to {to_type} {to} {labels:?}"));
        }
        if !exact {
            continue;
        }
        let of = |to: &str| {
            let from = (declared.object_type.clone(), id.to_owned());
            let ends = (from, (to_type.to_owned(), to.to_owned()));
            model.ledger.ties.get(&ends).cloned().unwrap_or_default()
        };
        for record in portal.records(to_type) {
            let to = record.id();
            let Tie { made, kept } = of(&to);
            if lacks(&to, &kept) {
                return Some(format!("lacks what people linked: {to_type} {to} {kept:?}"));
            }
            let ours = wanted.get(&to).unwrap_or(&none);
            let stays = allowed.get(to_type).is_some_and(|allowed| allowed.contains(&to));
            let mut rest = held.get(&to).unwrap_or(&none).iter();
            let labelled = rest.clone().any(|label| label != PLAIN);
            let explained = |label: &&String| {
                stays || ours.contains(*label) || made.contains(*label) || (*label == PLAIN && labelled)
            };
            if let Some(label) = rest.find(|label| !explained(label)) {
                return Some(format!(
                    "is linked to {to_type} {to} ({label:?}), which nobody wants"
                ));
            }
        }
    }
    None
}

/// Whether no other row ever held the record, so that all its links are this row's or people's.
fn is_alone(model: &Model, object: ObjectIndex, key: &Key, id: &str) -> bool {
    let ledger = &model.ledger;
    let foreign = (model.mapping.objects[object].object_type.clone(), id.to_owned());
    let mut holders = ledger.holders(object, id).into_iter();
    holders.all(|holder| ledger.was(object, key, &holder))
        && !ledger.let_go.contains(&(object, id.to_owned()))
        && !ledger.foreign.contains(&foreign)
}
