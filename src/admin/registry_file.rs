//! The registry's file: records behind a checked header each, appended whole and never changed.
//!
//! A record is `[u32 length][u32 check of the length][u32 check of the body]`, little-endian, and the body. The two checks tell a torn
//! append, which nobody was told had succeeded, from damage, which must not pass for the end of the file: a lost revocation would let
//! somebody in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const HEADER: usize = 12;
/// The longest body of a record, in bytes.
pub(super) const BODY_MAX: usize = 4096;

/// The records of a file, and where it goes wrong.
pub(super) struct Parsed<'a> {
    pub bodies: Vec<&'a [u8]>,
    /// The bytes up to the end of the last whole record.
    pub whole: usize,
    /// Whether a whole record follows the place where the file goes wrong, so that the rest is no torn append.
    pub damaged: bool,
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let hash = blake3::hash(bytes);
    [hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], hash.as_bytes()[3]]
}

/// The bytes of the record with this body.
pub(super) fn record(body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    [&len, &check(&len), &check(body), body].concat()
}

fn first_body(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (len_check, rest) = rest.split_first_chunk::<4>()?;
    let (body_check, rest) = rest.split_first_chunk::<4>()?;
    let size = u32::from_le_bytes(*len) as usize;
    if *len_check != check(len) || size > BODY_MAX {
        return None;
    }
    rest.get(..size).filter(|body| *body_check == check(body))
}

/// Reads records from the start of `bytes` until something is not one.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut bodies = Vec::new();
    let mut whole = 0;
    while let Some(body) = first_body(&bytes[whole..]) {
        bodies.push(body);
        whole += HEADER + body.len();
    }
    let damaged = (whole + 1..bytes.len()).any(|at| first_body(&bytes[at..]).is_some());
    Parsed { bodies, whole, damaged }
}

/// Appends a record at `end` and makes it durable; after a failure the file ends at `end` again as far as the system lets it.
pub(super) fn append(file: &File, end: u64, body: &[u8]) -> io::Result<u64> {
    let bytes = record(body);
    let written = file.write_all_at(&bytes, end).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // What is left of it is cut off at the next open if this fails too.
        let _ = file.set_len(end).and_then(|()| file.sync_all());
        return Err(error);
    }
    Ok(end + bytes.len() as u64)
}
