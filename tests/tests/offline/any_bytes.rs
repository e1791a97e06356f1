//! Fuzz targets' bodies without a fuzzer. They run on the committed corpus, and on reproducible
//! mutations of it.
#![expect(
    unreachable_pub,
    reason = "the bodies are another crate's, too, which has them public"
)]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use conntrace::{
    record::{WireRecord, decode, history::HostTable},
    recording::RecordingReader,
};
use conntrace_btf::Btf;
use conntrace_common::hash::HashSecret;
use conntrace_tests::{plain_test, run};

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// Number of mutations of every seed.
const MUTATIONS: usize = 1000;
/// Maximum number of changes in a mutation.
const CHANGES_MAX: usize = 8;

pub(crate) fn main() -> ExitCode {
    run(vec![
        plain_test("seeds_are_valid", seeds_are_valid),
        plain_test("wire", || check("wire", targets::wire)),
        plain_test("recording", || check("recording", targets::recording)),
        plain_test("filter", || check("filter", targets::filter)),
        plain_test("btf", || check("btf", targets::btf)),
    ])
}

fn seeds(target: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut files: Vec<_> = fs::read_dir(corpus.join(target))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Mutations of what no parser accepts would reach nothing behind it: after a change of the formats
/// the seeds have to be made anew.
fn seeds_are_valid() {
    for file in seeds("wire") {
        let bytes = fs::read(&file).unwrap();
        let (received, rest): (&[WireRecord], _) = bytes.as_chunks();
        if !rest.is_empty() {
            assert!(decode(&bytes).is_ok(), "{file:?}");
        }
        for record in received.iter().filter(|_| rest.is_empty()) {
            let mut hosts = HostTable::new(HashSecret::new([1, 2, 3]));
            let complete = hosts.complete(record, |_| 0);
            let decoded = complete.map(|complete| decode(&complete));
            // An answer makes no line.
            assert!(decoded.is_none_or(|decoded| decoded.is_ok()), "{file:?}");
        }
    }
    for file in seeds("btf") {
        assert!(Btf::parse(&fs::read(&file).unwrap()).is_ok(), "{file:?}");
    }
    for file in seeds("recording") {
        let mut reader = RecordingReader::new(File::open(&file).unwrap()).unwrap();
        let ended = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert_eq!(ended, !file.ends_with("cut.rec"), "{file:?}");
    }
}

fn check(target: &str, body: fn(&[u8])) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    body(b"");
    for file in seeds(target) {
        let seed = fs::read(file).unwrap();
        body(&seed);
        for _ in 0..MUTATIONS {
            body(&random.mutation(&seed));
        }
    }
}

/// Pseudorandom numbers by xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next()).unwrap() % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        // Values at the ends of a range, and terminators, are chosen more often.
        const SPECIAL: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'/'];
        match self.below(2) {
            0 => SPECIAL[self.below(SPECIAL.len())],
            _ => self.next().to_le_bytes()[0],
        }
    }

    /// Replaces, removes, inserts or cuts off some bytes of the seed.
    fn mutation(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(CHANGES_MAX) {
            let (at, byte) = (self.below(bytes.len()), self.byte());
            match self.below(8) {
                0 => bytes.insert(at, byte),
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 if self.below(8) == 0 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = byte),
            }
        }
        bytes
    }
}
