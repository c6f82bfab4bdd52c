//! Lines as SVG, one panel each, both axes logarithmic: what grows as the table does rises by 45°.

use std::fmt::Write;

/// A line of a panel of its own.
pub struct Line {
    pub title: &'static str,
    pub points: Vec<(f64, f64)>,
}

const PANEL: (f64, f64) = (320.0, 220.0);
const MARGIN: f64 = 44.0;

/// The drawing, panels beside each other.
pub fn plot(along: &str, lines: &[Line]) -> String {
    let width = PANEL.0 * lines.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        PANEL.1
    );
    for (at, line) in lines.iter().enumerate() {
        writeln!(svg, "<g transform=\"translate({},0)\">", PANEL.0 * at as f64).unwrap();
        panel(&mut svg, along, line);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, along: &str, line: &Line) {
    let x_range = decades(line.points.iter().map(|point| point.0));
    let y_range = decades(line.points.iter().map(|point| point.1));
    let x = |value: f64| place(value, x_range, MARGIN, PANEL.0 - 16.0);
    let y = |value: f64| place(value, y_range, PANEL.1 - MARGIN, 28.0);
    writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"16\" font-weight=\"bold\">{}</text>",
        line.title
    )
    .unwrap();
    let (middle, foot) = (PANEL.0 / 2.0, PANEL.1 - 8.0);
    writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{along}</text>"
    )
    .unwrap();
    for power in x_range.0..=x_range.1 {
        let (at, label) = (x(10_f64.powi(power)), 10_f64.powi(power));
        let (top, bottom) = (y(10_f64.powi(y_range.1)), y(10_f64.powi(y_range.0)));
        writeln!(svg, "<path d=\"M{at:.1} {top:.1}V{bottom:.1}\" stroke=\"#ddd\"/>").unwrap();
        let below = bottom + 14.0;
        writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{label}</text>"
        )
        .unwrap();
    }
    for power in y_range.0..=y_range.1 {
        let (at, label) = (y(10_f64.powi(power)), 10_f64.powi(power));
        let (left, right) = (x(10_f64.powi(x_range.0)), x(10_f64.powi(x_range.1)));
        writeln!(svg, "<path d=\"M{left:.1} {at:.1}H{right:.1}\" stroke=\"#ddd\"/>").unwrap();
        let (before, under) = (left - 4.0, at + 4.0);
        writeln!(
            svg,
            "<text x=\"{before:.1}\" y=\"{under:.1}\" text-anchor=\"end\">{label}</text>"
        )
        .unwrap();
    }
    let points = line
        .points
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)));
    let points: Vec<String> = points.collect();
    let path = points.join(" ");
    writeln!(
        svg,
        "<polyline points=\"{path}\" fill=\"none\" stroke=\"#0b6\" stroke-width=\"2\"/>"
    )
    .unwrap();
    for point in &line.points {
        let (at_x, at_y) = (x(point.0), y(point.1));
        writeln!(
            svg,
            "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\" fill=\"#0b6\"/>"
        )
        .unwrap();
    }
}

/// The powers of ten around values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let least = values.clone().fold(f64::INFINITY, f64::min).max(1e-6);
    let most = values.fold(0.0, f64::max).max(1e-6);
    let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    (low, high.max(low + 1))
}

fn place(value: f64, (low, high): (i32, i32), from: f64, to: f64) -> f64 {
    let part = (value.max(1e-6).log10() - f64::from(low)) / f64::from(high - low);
    from + part * (to - from)
}
