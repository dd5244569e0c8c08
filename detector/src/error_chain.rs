//! Errors as a log and a user get them: with what they came from, in one line.

/// An error and its causes. Some name theirs in their own text, which is not said twice; of a text of several lines the first
/// is taken.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Caused(&'static str, #[source] std::io::Error);

    #[test]
    fn a_cause_is_named_once_and_in_one_line() {
        let cause = || std::io::Error::other("no such socket");
        assert_eq!(chain(&Caused("transport error", cause())), "transport error: no such socket");
        assert_eq!(chain(&Caused("lost: no such socket", cause())), "lost: no such socket");
        assert_eq!(chain(&Caused("refused\nby the verifier", cause())), "refused");
    }
}
