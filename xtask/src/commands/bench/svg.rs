//! Bars: one picture of several panels, each with a bar a tool. Plain SVG, whose colours follow the reader's light or dark page.

use std::fmt::Write as _;

/// Panels beneath each other.
#[derive(Debug, Default)]
pub struct Picture {
    pub title: String,
    pub panels: Vec<Panel>,
}

/// Bars of one scale.
#[derive(Debug, Default)]
pub struct Panel {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug)]
pub struct Bar {
    pub name: String,
    /// Its parts from left to right, each with its kind.
    pub parts: Vec<(Kind, f64)>,
    /// What is written at its end.
    pub label: String,
}

/// What a part of a bar stands for: its colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// rosentry's.
    Ours,
    /// Another tool's.
    Theirs,
    /// What was lost and said to be.
    Said,
    /// What was lost without a word.
    Silent,
}

impl Kind {
    const fn class(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
            Self::Said => "said",
            Self::Silent => "silent",
        }
    }
}

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.panel{font-weight:600}\
.ours{fill:#0a7d5a}.theirs{fill:#8c959f}.said{fill:#d4a72c}.silent{fill:#cf222e}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#3fb98f}.theirs{fill:#6e7681}.said{fill:#d29922}.silent{fill:#f85149}}";

const WIDTH: u32 = 760;
const NAMES: u32 = 160;
/// Room for what is written at the end of a bar.
const LABELS: u32 = 150;
const ROW: u32 = 20;
const HEAD: u32 = 34;

impl Picture {
    /// As an SVG file. What is below zero has no bar; its label tells it.
    pub fn render(&self) -> String {
        let rows: usize = self.panels.iter().map(|panel| panel.bars.len()).sum();
        let height = HEAD + HEAD * self.panels.len() as u32 + ROW * rows as u32 + ROW;
        let mut body = String::new();
        let mut y = 22;
        text(&mut body, 8, y, "title", &self.title);
        for panel in &self.panels {
            y += HEAD;
            text(&mut body, 8, y, "panel", &panel.title);
            let sum = |bar: &Bar| bar.parts.iter().map(|&(_, length)| length.max(0.0)).sum::<f64>();
            let longest = panel.bars.iter().map(sum).fold(f64::MIN_POSITIVE, f64::max);
            for bar in &panel.bars {
                y += ROW;
                text(&mut body, 16, y, "name", &bar.name);
                let mut x = f64::from(NAMES);
                for &(kind, length) in &bar.parts {
                    let width = length.max(0.0) / longest * f64::from(WIDTH - NAMES - LABELS);
                    push(
                        &mut body,
                        format_args!(
                            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"13\"/>\n",
                            kind.class(),
                            y - 11
                        ),
                    );
                    x += width;
                }
                text(&mut body, x as u32 + 6, y, "label", &bar.label);
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n{body}</svg>\n",
            escaped(&self.title)
        )
    }
}

fn text(to: &mut String, x: u32, y: u32, class: &str, text: &str) {
    push(to, format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>\n", escaped(text)));
}

fn push(to: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever it is given.
    let _ = to.write_fmt(what);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, length: f64) -> Bar {
        Bar { name: name.to_owned(), parts: vec![(Kind::Ours, length)], label: format!("{length:+.0}") }
    }

    #[test]
    fn the_longest_bar_fills_its_panel_and_the_others_are_in_proportion() {
        let panel =
            Panel { title: "a < b".to_owned(), bars: vec![bar("all", 200.0), bar("half", 100.0), bar("none", -3.0)] };
        let picture = Picture { title: "costs".to_owned(), panels: vec![panel] }.render();
        for width in ["width=\"450.0\" height=\"13\"", "width=\"225.0\" height=\"13\"", "width=\"0.0\" height=\"13\""] {
            assert!(picture.contains(width), "{picture}");
        }
        assert!(picture.contains("a &lt; b") && picture.contains(">-3<"), "{picture}");
    }
}
