//! The rates as a picture: a bar for each system in each row, on a logarithmic scale. Plain SVG, readable on light and dark.

use std::fmt::Write as _;

use super::report::Report;

const WIDTH: f64 = 900.0;
const NAMES_WIDTH: f64 = 320.0;
const VALUES_WIDTH: f64 = 70.0;
const BAR_HEIGHT: f64 = 11.0;
const ROW_GAP: f64 = 10.0;
const TOP: f64 = 80.0;
const BOTTOM: f64 = 26.0;
/// Where the scale begins: below it a bar has no length.
const LEAST: f64 = 100.0;
const COLOURS: [&str; 3] = ["#1a7f64", "#5b7db1", "#c08b3e"];

pub fn svg(report: &Report) -> String {
    let systems = report.systems();
    let rows = report.rows();
    let rate = |row: &str, system: &str| report.rate(row, system).map(|spread| spread.median);
    let rates = rows.iter().flat_map(|row| systems.iter().filter_map(|system| rate(row, system)));
    let highest = rates.fold(10.0 * LEAST, f64::max);
    let length = |rate: f64| (rate.max(LEAST) / LEAST).log10();
    let bar_width = |rate: f64| (WIDTH - NAMES_WIDTH - VALUES_WIDTH) * length(rate) / length(highest);
    let row_height = BAR_HEIGHT * systems.len() as f64 + ROW_GAP;
    let end = TOP + row_height * rows.len() as f64;
    let height = end + BOTTOM;

    let mut svg = head(height);
    text(
        &mut svg,
        16.0,
        24.0,
        "start",
        "Transfers or reads a second, three replicas, every write synced; logarithmic scale",
    );
    for (index, system) in systems.iter().enumerate() {
        let x = NAMES_WIDTH + 120.0 * index as f64;
        rectangle(&mut svg, x, 38.0, 12.0, COLOURS[index % COLOURS.len()]);
        text(&mut svg, x + 18.0, 48.0, "start", system);
    }
    let powers = std::iter::successors(Some(LEAST), |power| Some(power * 10.0)).take_while(|power| *power <= highest);
    for power in powers {
        let x = NAMES_WIDTH + bar_width(power);
        line(&mut svg, x, TOP - 8.0, end);
        text(&mut svg, x, TOP - 12.0, "middle", &crate::text::grouped(power as u128));
    }
    text(&mut svg, 16.0, end + BOTTOM - 8.0, "start", &report.heading());
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + row_height * number as f64;
        text(&mut svg, NAMES_WIDTH - 10.0, top + row_height / 2.0, "end", row);
        for (index, system) in systems.iter().enumerate() {
            let Some(rate) = rate(row, system) else { continue };
            let y = top + BAR_HEIGHT * index as f64;
            rectangle(&mut svg, NAMES_WIDTH, y, bar_width(rate), COLOURS[index % COLOURS.len()]);
            let value = crate::text::grouped(rate.round() as u128);
            text(&mut svg, NAMES_WIDTH + bar_width(rate) + 5.0, y + BAR_HEIGHT - 2.0, "start", &value);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn head(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

fn rectangle(svg: &mut String, x: f64, y: f64, width: f64, colour: &str) {
    let height = BAR_HEIGHT - 1.0;
    writeln!(svg, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{colour}"/>"#)
        .expect("a string takes everything");
}

fn line(svg: &mut String, x: f64, top: f64, bottom: f64) {
    writeln!(svg, r##"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="#ddd"/>"##).expect("a string takes everything");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#)
        .expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_rate_has_a_bar_and_its_figure() {
        let svg = svg(&report(&[("1 caller", "jangbu", 1_540.0), ("1 caller", "etcd", 336.0)]));
        assert!(svg.contains(">1,540<") && svg.contains(">336<"), "{svg}");
        // A background, two in the legend, two bars.
        assert_eq!(svg.matches("<rect").count(), 5);
    }
}
