//! Files of what was sent and answered, for people and other programs: one JSON line a message or answer, or each
//! message as a file of its own, as the original generator writes them. Both end at a limit, and what was left out is
//! counted.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ledger::Answer;
use super::scenario::Message;

/// A message and when it is due.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scheduled {
    pub(super) message: Message,
    /// Since the customer began.
    pub(super) due: Duration,
    /// The same as a time; `None` for the counterparts at the end.
    pub(super) at: Option<Timestamp>,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{option}: cannot write {path}")]
pub struct RecordError {
    /// The option that asked for it.
    pub option: &'static str,
    /// The file.
    pub path: String,
    /// What the system said.
    pub source: std::io::Error,
}

/// Where records go.
#[derive(Debug)]
enum Lines {
    Nowhere,
    Standard,
    File(PathBuf, BufWriter<File>),
}

/// The files of one run.
#[derive(Debug)]
pub struct Records {
    lines: Lines,
    folder: Option<PathBuf>,
    /// Lines, and files, that may still be written.
    room: (u64, u64),
    files: u64,
    left_out: u64,
    failed: Option<RecordError>,
}

impl Records {
    /// Files that do not exist yet: nothing is overwritten. Each kind ends after `limit` records.
    ///
    /// # Errors
    /// A file or folder cannot be made, or was there before.
    pub fn create(file: Option<&Path>, folder: Option<&Path>, limit: u64) -> Result<Self, RecordError> {
        let lines = match file {
            None => Lines::Nowhere,
            Some(path) => {
                let file = OpenOptions::new().write(true).create_new(true).open(path);
                Lines::File(path.to_owned(), BufWriter::new(file.map_err(failed("--file", path))?))
            }
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(failed("--output-dir", folder))?;
        }
        let folder = folder.map(Path::to_owned);
        Ok(Self { lines, folder, room: (limit, limit), files: 0, left_out: 0, failed: None })
    }

    /// Lines on standard output.
    pub fn to_standard_output(limit: u64) -> Self {
        Self {
            lines: Lines::Standard,
            folder: None,
            room: (limit, limit),
            files: 0,
            left_out: 0,
            failed: None,
        }
    }

    /// A message, `now` handed to a broker, or to nobody.
    pub(super) fn sent(&mut self, customer: usize, scheduled: &Scheduled, now: Option<Timestamp>) {
        let Scheduled { message, due, .. } = scheduled;
        let mut line = json!({
            "what": "sent",
            "customer": customer,
            "dueSeconds": due.as_secs_f64(),
            "id": message.id,
            "correlationId": message.correlation_id,
            "kind": message.kind,
            "expected": message.expected,
        });
        if let Some(now) = now {
            line["at"] = json!(now);
        }
        body(&mut line, &message.body);
        self.line(&line);
        self.file(&message.body);
    }

    /// An answer.
    pub(super) fn answered(&mut self, answer: Answer<'_>, now: Timestamp) {
        let mut line = json!({
            "what": "answer",
            "at": now,
            "id": answer.id,
            "status": answer.status,
            "messageId": answer.message_id,
            "epoch": answer.epoch,
        });
        body(&mut line, answer.body);
        self.line(&line);
    }

    fn line(&mut self, line: &Value) {
        let written = match &mut self.lines {
            Lines::Nowhere => return,
            _ if self.room.0 == 0 => {
                self.left_out += 1;
                return;
            }
            Lines::Standard => {
                writeln!(std::io::stdout().lock(), "{line}").map_err(failed("--dry-run", Path::new("-")))
            }
            Lines::File(path, file) => writeln!(file, "{line}").map_err(failed("--file", path)),
        };
        self.room.0 -= 1;
        self.note(written);
    }

    /// `trade_<n>.json`, from 1.
    fn file(&mut self, bytes: &[u8]) {
        let Some(folder) = &self.folder else { return };
        if self.room.1 == 0 {
            self.left_out += 1;
            return;
        }
        self.room.1 -= 1;
        self.files += 1;
        let path = folder.join(format!("trade_{}.json", self.files));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(bytes)).map_err(failed("--output-dir", &path));
        self.note(written);
    }

    /// After the first failure nothing more is tried: the run goes on, and tells of it at the end.
    fn note(&mut self, written: Result<(), RecordError>) {
        if let Err(error) = written {
            self.failed.get_or_insert(error);
            self.lines = Lines::Nowhere;
            self.folder = None;
        }
    }

    /// Records beyond the limit.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// The first failure of the run.
    pub fn finish(&mut self) -> Result<(), RecordError> {
        if let Lines::File(path, file) = &mut self.lines {
            let flushed = file.flush().map_err(failed("--file", path));
            self.note(flushed);
        }
        self.failed.take().map_or(Ok(()), Err)
    }
}

fn failed(option: &'static str, path: &Path) -> impl Fn(std::io::Error) -> RecordError {
    let path = path.display().to_string();
    move |source| RecordError { option, path: path.clone(), source }
}

/// The bytes as text; those that are no text as hexadecimal digits.
fn body(line: &mut Value, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => line["body"] = json!(text),
        Err(_) => {
            line["bodyHex"] = json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    fn scheduled(number: u64) -> Scheduled {
        let message = Scenario::new(number, 0.0, jiff::civil::date(2026, 2, 9)).next_message();
        Scheduled { message, due: Duration::from_millis(10 * number), at: None }
    }

    #[test]
    fn messages_and_answers_are_lines_and_each_message_is_a_file_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let (file, trades) = (folder.path().join("all.jsonl"), folder.path().join("trades"));
        let mut records = Records::create(Some(&file), Some(&trades), 2).unwrap();
        records.sent(1, &scheduled(5), None);
        let now = Timestamp::from_second(7).unwrap();
        let answer = Answer { id: "a", status: "NACK", message_id: "m", body: &[0xff], epoch: Some(3) };
        records.answered(answer, now);
        records.sent(0, &scheduled(6), Some(now));
        records.sent(0, &scheduled(7), Some(now));
        records.finish().unwrap();
        let lines: Vec<Value> = std::fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        let message = scheduled(5).message;
        assert_eq!((&lines[0]["id"], &lines[0]["customer"]), (&json!(message.id), &json!(1)));
        assert_eq!((&lines[0]["dueSeconds"], &lines[0]["at"]), (&json!(0.05), &Value::Null));
        assert_eq!(lines[0]["body"].as_str().unwrap().as_bytes(), message.body);
        assert_eq!((&lines[1]["status"], &lines[1]["bodyHex"]), (&json!("NACK"), &json!("ff")));
        assert_eq!(std::fs::read(trades.join("trade_1.json")).unwrap(), message.body);
        assert!(trades.join("trade_2.json").exists() && !trades.join("trade_3.json").exists());
        // Two lines and a file.
        assert_eq!(records.left_out(), 3);
    }

    #[test]
    fn nothing_is_overwritten_and_a_failure_is_told_once_with_its_option() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("there");
        std::fs::write(&file, "before").unwrap();
        let refused = Records::create(Some(&file), None, 9).unwrap_err().to_string();
        assert!(refused.starts_with("--file: cannot write"), "{refused}");
        std::fs::write(folder.path().join("trade_1.json"), "before").unwrap();
        let mut records = Records::create(None, Some(folder.path()), 9).unwrap();
        records.sent(0, &scheduled(1), None);
        records.sent(0, &scheduled(2), None);
        let failed = records.finish().unwrap_err().to_string();
        assert!(
            failed.starts_with("--output-dir: cannot write") && failed.ends_with("trade_1.json"),
            "{failed}"
        );
        assert!(!folder.path().join("trade_2.json").exists());
        assert_eq!(std::fs::read_to_string(folder.path().join("trade_1.json")).unwrap(), "before");
        records.finish().unwrap();
    }
}
