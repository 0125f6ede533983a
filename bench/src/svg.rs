//! Bar charts as SVG: a panel for each measure, a bar for each label's median, a whisker for its spread.
//!
//! Colours are told apart on light and on dark paper, and the text takes the reader's scheme.

use std::fmt::Write as _;

use crate::report::Spread;

/// One measure of several competitors.
pub(crate) struct Panel {
    /// What is measured, with its unit.
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) spread: Spread,
    /// Drawn in the colour of what the chart is about.
    pub(crate) ours: bool,
}

const WIDTH: f64 = 760.0;
/// Room before the bars: as much as the longest label takes, within bounds.
const LABELS_MIN: f64 = 110.0;
const LABELS_MAX: f64 = 430.0;
/// What a letter takes on average, and a little more.
const LETTER: f64 = 7.2;
/// Room behind the longest bar for its figure.
const FIGURES: f64 = 90.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
const HEAD: f64 = 30.0;
const AXIS: f64 = 34.0;
const TITLE: f64 = 34.0;
const FOOT: f64 = 24.0;
const TICKS: f64 = 5.0;

const STYLE: &str = "\
text{font-family:system-ui,sans-serif;font-size:13px;fill:#333}\
.title{font-size:16px;font-weight:600}.panel{font-weight:600}.minor{font-size:11px;fill:#666}\
.paper{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#888}\
.bar{fill:#8a99a8}.ours{fill:#2f7fc1}.whisker{stroke:#333;stroke-width:1.5}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.minor{fill:#aaa}.paper{fill:#16191d}.grid{stroke:#343a40}\
.axis{stroke:#888}.bar{fill:#6c7a88}.ours{fill:#4a9de0}.whisker{stroke:#eee}}";

/// The whole picture.
pub(crate) fn draw(title: &str, panels: &[Panel]) -> String {
    let panel_height = |panel: &Panel| HEAD + panel.bars.len() as f64 * ROW + AXIS;
    let height = TITLE + panels.iter().map(panel_height).sum::<f64>() + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        title = escaped(title),
    );
    text(&mut svg, "title", (12.0, 24.0), "start", title);
    let mut top = TITLE;
    let labels = labels_width(panels);
    for panel in panels {
        draw_panel(&mut svg, top, labels, panel);
        top += panel_height(panel);
    }
    text(&mut svg, "minor", (12.0, height - 8.0), "start", foot(panels));
    svg.push_str("</svg>\n");
    svg
}

/// What the bars stand for.
fn foot(panels: &[Panel]) -> &'static str {
    let has_spread = |bar: &Bar| bar.spread.least < bar.spread.most;
    match panels.iter().flat_map(|panel| &panel.bars).any(has_spread) {
        true => "Bars are medians of the rounds, whiskers the least and the most.",
        false => "Each bar is one figure of the whole run.",
    }
}

fn labels_width(panels: &[Panel]) -> f64 {
    let longest = panels.iter().flat_map(|panel| &panel.bars).map(|bar| bar.label.chars().count()).max();
    (longest.unwrap_or_default() as f64 * LETTER + 20.0).clamp(LABELS_MIN, LABELS_MAX)
}

fn draw_panel(svg: &mut String, top: f64, labels: f64, panel: &Panel) {
    let plot = WIDTH - labels - FIGURES;
    let most = panel.bars.iter().map(|bar| bar.spread.most).fold(0.0, f64::max);
    let step = tick_step(most);
    let end = (most / step).ceil().max(1.0) * step;
    let x = |value: f64| labels + value.max(0.0) / end * plot;
    text(svg, "panel", (12.0, top + 18.0), "start", &panel.title);
    let (rows, bottom) = (top + HEAD, top + HEAD + panel.bars.len() as f64 * ROW);
    for tick in 0..=(end / step).round() as u32 {
        let value = f64::from(tick) * step;
        line(svg, if tick == 0 { "axis" } else { "grid" }, (x(value), rows), (x(value), bottom));
        text(svg, "minor", (x(value), bottom + 15.0), "middle", &figure(value, step));
    }
    for (bar, row) in panel.bars.iter().zip(0_u32..) {
        let Spread { median, least, most } = bar.spread;
        let middle = rows + (f64::from(row) + 0.5) * ROW;
        text(svg, "label", (labels - 8.0, middle + 4.5), "end", &bar.label);
        let class = if bar.ours { "bar ours" } else { "bar" };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{labels:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            middle - BAR / 2.0,
            x(median) - labels,
        );
        if most > least {
            line(svg, "whisker", (x(least), middle), (x(most), middle));
            for end in [least, most] {
                line(svg, "whisker", (x(end), middle - 4.0), (x(end), middle + 4.0));
            }
        }
        text(
            svg,
            "label",
            (x(most.max(median)) + 7.0, middle + 4.5),
            "start",
            &figure(median, median / 50.0),
        );
    }
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// One, two or five of a power of ten, so that about five steps reach `most`.
fn tick_step(most: f64) -> f64 {
    let raw = if most > 0.0 { most / TICKS } else { 1.0 };
    let power = 10_f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= raw).unwrap_or(10.0 * power)
}

/// As many decimals as tell values apart that differ by `resolution`; thousands in groups.
fn figure(value: f64, resolution: f64) -> String {
    let decimals = if resolution > 0.0 { (-resolution.log10().floor()).clamp(0.0, 4.0) as usize } else { 0 };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_longest_bar() {
        for (most, step) in [(5.0, 1.0), (7.3, 2.0), (13.0, 5.0), (150_000.0, 50_000.0), (0.0, 1.0)] {
            assert!((tick_step(most) - step).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn figures_have_as_many_decimals_as_they_need() {
        assert_eq!(figure(150_000.4, 3_000.0), "150,000");
        assert_eq!(figure(8.342, 0.17), "8.3");
        assert_eq!(figure(0.0, 0.5), "0.0");
    }

    #[test]
    fn the_longest_label_has_room() {
        let bars = vec![Bar { label: "x".repeat(40), spread: Spread::of([1.0]), ours: true }];
        assert!(labels_width(&[Panel { title: String::new(), bars }]) > 40.0 * 7.0);
        assert_eq!(labels_width(&[]), LABELS_MIN);
    }

    #[test]
    fn a_label_cannot_end_its_element() {
        let spread = Spread::of([1.0, 2.0, 4.0]);
        let bars = vec![Bar { label: "a<b & \"c\"".to_owned(), spread, ours: true }];
        let svg = draw("t", &[Panel { title: "µs".to_owned(), bars }]);
        assert!(svg.contains("a&lt;b &amp; &quot;c&quot;") && svg.contains(">2.00<"), "{svg}");
    }
}
