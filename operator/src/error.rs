//! Printing of error chains: each cause once.

use std::error::Error;
use std::fmt::Write as _;

/// The error and its causes in one line. A cause whose words the line already ends with is left out, because some
/// libraries repeat their source in their own text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !line.ends_with(&words) {
            // Writing into a String cannot fail.
            let _ = write!(line, ": {words}");
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("repeats: inner")]
    struct Repeats(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("quiet")]
    struct Quiet(#[source] Repeats);

    #[test]
    fn each_cause_is_printed_once() {
        assert_eq!(chain(&Quiet(Repeats(Inner))), "quiet: repeats: inner");
    }
}
