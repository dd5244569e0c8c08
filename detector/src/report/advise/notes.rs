//! What no mount mends, in sentences.

use std::borrow::Cow;

use super::evidence::{Container, Why};
use crate::report::printable::word;

/// Sentences that are told of one container; of the others the number is.
const TOLD_MAX: usize = 24;

/// What no mount mends, the more frequent first.
pub fn of(container: &Container) -> Vec<String> {
    let mut all: Vec<_> = container.notes.iter().collect();
    all.sort_by(|(a, (first, _)), (b, (second, _))| second.cmp(first).then_with(|| a.cmp(b)));
    let mut told_of: Vec<String> = all
        .iter()
        .take(TOLD_MAX)
        .map(|((why, what), (count, exe))| {
            let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
            let (what, exe) = (told(what), told(exe));
            match why {
                Why::Suspicious => {
                    format!("no mount is advised for {what} by {exe}, {times}: no application should write it, find out what did")
                }
                Why::Package => {
                    format!("no mount is advised for {what} by {exe}, {times}: install packages and plug-ins when the image is built")
                }
                Why::VolumeFailed => {
                    format!("the volume at {what} is declared writable and refused {exe}, {times}: look for a storage fault")
                }
                Why::VolumeReadOnly => {
                    format!("the volume at {what} refused {exe}, {times}: mount it without readOnly where it can be written; a ConfigMap, Secret or projected volume never can")
                }
                Why::Elsewhere => format!("{what} by {exe}, {times}, is neither on the root nor in a volume: no mount mends it"),
                Why::NoPath => format!("{what} by {exe}, {times}: its whole path is not known"),
                Why::Unfit(why) => format!("{what} by {exe}, {times}, gets no mount: {why}"),
            }
        })
        .collect();
    let beyond = all.iter().skip(TOLD_MAX).fold(container.beyond, |sum, (_, (count, _))| sum.saturating_add(*count));
    if beyond > 0 {
        told_of.push(format!("{beyond} more writes are not looked at one by one"));
    }
    told_of
}

/// A name of others among words.
pub fn told(text: &str) -> Cow<'_, str> {
    if text.is_empty() { Cow::Borrowed("?") } else { word(text) }
}
