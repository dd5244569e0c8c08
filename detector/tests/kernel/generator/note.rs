//! What a call came to, as the generator notes it and as an event tells it.

/// One refused write.
#[derive(Clone, Debug)]
pub struct Note {
    pub operation: String,
    /// Real and absolute; none where a documented limit says so.
    pub path: Option<Vec<u8>>,
    /// The new name of a rename or a link.
    pub new_path: Option<Vec<u8>>,
    pub result: i64,
    /// How it was asked for; no part of what is compared.
    pub how: String,
}

/// What is compared: operation, path, new path, result.
pub type Key = (String, Option<Vec<u8>>, Option<Vec<u8>>, i64);

impl Note {
    pub fn key(&self) -> Key {
        (self.operation.clone(), self.path.clone(), self.new_path.clone(), self.result)
    }

    /// In one line without anything hostile in it.
    pub fn to_line(&self) -> String {
        let Self { operation, path, new_path, result, how } = self;
        format!("{operation}\t{}\t{}\t{result}\t{how}", written(path.as_deref()), written(new_path.as_deref()))
    }

    pub fn from_line(line: &str) -> Self {
        let [operation, path, new_path, result, how] = line.splitn(5, '\t').collect::<Vec<_>>()[..] else {
            panic!("no note: {line}")
        };
        Self {
            operation: operation.to_owned(),
            path: read(path),
            new_path: read(new_path),
            result: result.parse().unwrap(),
            how: how.to_owned(),
        }
    }
}

fn written(path: Option<&[u8]>) -> String {
    path.map_or("-".to_owned(), |path| path.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(text: &str) -> Option<Vec<u8>> {
    let byte = |index: usize| u8::from_str_radix(&text[index..index + 2], 16).unwrap();
    (text != "-").then(|| (0..text.len()).step_by(2).map(byte).collect())
}

/// A key as a person can read it.
pub fn shown((operation, path, new_path, result): &Key) -> String {
    let shown = |path: &Option<Vec<u8>>| path.as_ref().map_or("-".to_owned(), |path| path.escape_ascii().to_string());
    format!("{operation} {} {} ({result})", shown(path), shown(new_path))
}
