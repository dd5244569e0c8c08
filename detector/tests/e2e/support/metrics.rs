//! The agent's HTTP side: a request without a client library, and the Prometheus text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>) as numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// GET over HTTP/1.0, where an answer ends with its connection; returns the status code and the body.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.map(|code| (code, body.to_owned())).ok_or(io::ErrorKind::InvalidData.into())
}

/// One scrape.
#[derive(Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Fails the test on a line that is no sample.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample of a metric: {line}"))).collect())
    }

    /// The sum of the samples of this name that have all these labels; `None` where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &Sample, (key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|it| it == value);
        let matching = |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        self.0.iter().filter(matching).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

impl Metrics {
    /// How many samples there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no two samples have the same name and the same labels.
    pub fn are_distinct(&self) -> bool {
        let series: BTreeSet<_> = self.0.iter().map(|sample| (&sample.name, &sample.labels)).collect();
        series.len() == self.0.len()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(key.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[test]
fn a_label_with_quotes_commas_and_braces_is_read_as_it_was_written() {
    let metrics = Metrics::parse(
        "# HELP a_total x\na_total{pod=\"w\\\"e,b}\",namespace=\"n\"} 3\na_total{pod=\"x\"} 4 17\nb 1.5\n",
    );
    assert_eq!(metrics.sum("a_total", &[("pod", "w\"e,b}"), ("namespace", "n")]), Some(3.0));
    assert_eq!(metrics.sum("a_total", &[]), Some(7.0));
    assert_eq!(metrics.sum("b", &[]), Some(1.5));
    assert_eq!(metrics.sum("c", &[]), None);
}
