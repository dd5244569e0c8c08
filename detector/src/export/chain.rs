//! The hash chain over a stream of events: a line that was changed, taken out or put in breaks every link after it.
//!
//! `chain` of a line is the lower-case hexadecimal SHA-256 of the previous line's `chain` (64 ASCII digits; for the first
//! line [`START`]) followed by the bytes of this line without its member `chain`: from `{` to the last member before it, and
//! a closing `}`. That is an object by itself; neither the line's end nor white space is part of it.

use sha2::{Digest, Sha256};

/// What stands for the `chain` of the line before the first.
pub const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The end of a chain.
#[derive(Clone, Debug)]
pub struct Chain {
    last: String,
}

impl Chain {
    /// A chain without links.
    pub fn new() -> Self {
        Self { last: START.to_owned() }
    }

    /// Adds a line, told without its `chain`, and returns what its `chain` is.
    pub fn link(&mut self, line_without_chain: &[u8]) -> &str {
        let digest = Sha256::new().chain_update(self.last.as_bytes()).chain_update(line_without_chain).finalize();
        self.last.clear();
        for byte in digest {
            for digit in [byte >> 4, byte & 0xf] {
                self.last.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
            }
        }
        &self.last
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_link_is_what_sha256sum_says_of_the_start_and_the_line() {
        // printf '%064d{"seq":1}' 0 | sha256sum
        let expected = "0a00898550374c41186879d92f30325cd0a550ce8c5da4d9aeef34a95c0b85ea";
        assert_eq!(Chain::new().link(b"{\"seq\":1}"), expected);
    }

    #[test]
    fn a_link_depends_on_all_links_before() {
        let (mut one, mut other) = (Chain::new(), Chain::new());
        one.link(b"{\"seq\":1}");
        other.link(b"{\"seq\":1,\"x\":0}");
        assert_ne!(one.link(b"{\"seq\":2}"), other.link(b"{\"seq\":2}"));
    }
}
