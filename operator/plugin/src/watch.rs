//! Following a run: on a terminal the same place is drawn again and again, else each change is a line of standard error.

use std::io::IsTerminal;
use std::time::Duration;

use terminal_size::{Height, Width, terminal_size_of};

use crate::cli::{Global, Output};
use crate::find::Regions;
use crate::progress::changes;
use crate::text::{self, COLUMNS, LINES, Style};
use crate::view::View;

/// Time between two looks at a run.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks again and again, shows what changed, and ends when `ended` says so. Absent: the time was up before.
pub(crate) async fn follow<T>(
    global: &Global,
    regions: &Regions,
    view: &mut View,
    limit: Duration,
    ended: impl Fn(&View) -> Option<T>,
) -> Option<T> {
    let in_place = global.output == Output::Text && std::io::stderr().is_terminal();
    let mut screen = Screen::default();
    let looks = async {
        let mut before: Option<View> = None;
        loop {
            // A look that fails shows nothing new; the last view stays and its ages grow.
            if let Ok((_, fresh)) = regions.look(Some(&view.name), None).await {
                *view = fresh;
            }
            if in_place {
                screen.draw(view, !global.no_color);
            } else {
                for change in changes(before.as_ref(), view) {
                    eprintln!("{}", text::change(&change, view.at));
                }
            }
            if let Some(end) = ended(view) {
                return end;
            }
            before = Some(view.clone());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let end = tokio::time::timeout(limit, looks).await.ok();
    screen.clear();
    end
}

/// What is drawn at the same place of a terminal: never more lines or columns than that has, so that none is wrapped or
/// scrolled away and the way back up is as many rows as there were lines.
#[derive(Default)]
struct Screen {
    lines: usize,
}

impl Screen {
    fn draw(&mut self, view: &View, colour: bool) {
        let size = terminal_size_of(std::io::stderr());
        let (columns, rows) = size.map_or((COLUMNS, LINES), |(Width(columns), Height(rows))| {
            // The cursor stands on a row of its own below the last line.
            (usize::from(columns), usize::from(rows).saturating_sub(1).max(1))
        });
        let style = Style { colour, columns: columns.min(COLUMNS) };
        let (text, lines) = frame(&text::status(view, style), rows);
        eprint!("{}{text}", up(self.lines));
        self.lines = lines;
    }

    /// Makes room for what is told at the end, if that goes to the same terminal.
    fn clear(&self) {
        if std::io::stdout().is_terminal() {
            eprint!("{}", up(self.lines));
        }
    }
}

/// Up over what was drawn last, and clear from there.
fn up(lines: usize) -> String {
    if lines > 0 { format!("\u{1b}[{lines}A\u{1b}[J") } else { String::new() }
}

/// The first lines of a text, and how many they are. Meanwhile the terminal wraps nothing: a wide character takes two
/// columns.
fn frame(text: &str, rows: usize) -> (String, usize) {
    let lines: Vec<&str> = text.lines().take(rows).collect();
    (format!("\u{1b}[?7l{}\n\u{1b}[?7h", lines.join("\n")), lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_has_as_many_rows_as_are_cleared_for_the_next() {
        let (text, lines) = frame("one\ntwo\nthree\n", 2);
        assert_eq!((text.as_str(), lines), ("\u{1b}[?7lone\ntwo\n\u{1b}[?7h", 2));
        assert_eq!(up(lines), "\u{1b}[2A\u{1b}[J");
        assert_eq!(up(0), "", "the first time there is nothing to clear");
    }
}
