//! Public keys: the identity of a device or a hub, and the forms in which people pass it on.

use data_encoding::BASE32_NOPAD;
use data_encoding::BASE64;
use std::fmt;
use std::str::FromStr;

/// What every public key in its one-line form begins with.
pub const KEY_PREFIX: &str = "syncfs1";
/// The letters after [`KEY_PREFIX`]: 32 bytes of key and 2 bytes of check in base32.
const KEY_LETTERS: usize = 55;
/// What precedes the 32 bytes of an Ed25519 key in its DER form (`SubjectPublicKeyInfo`, RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The length of a key in its DER form, in bytes.
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + 32;

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
const SSH_KIND: &str = "ssh-ed25519";

/// A valid Ed25519 public key: canonical and not of low order, so that a signature under it proves something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why something is not a [`PublicKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("this is a weak Ed25519 key: anybody can sign in its name")]
    Weak,
    #[error("this is not an Ed25519 public key")]
    NotEd25519,
    #[error("this is a private key, which must stay where it was made; the public key is what `syncfs key show` prints")]
    Private,
    #[error("this is no public key: it begins neither with syncfs1 nor with ssh-ed25519 nor with -----BEGIN PUBLIC KEY-----")]
    Unknown,
    #[error("a public key has {KEY_LETTERS} letters after {KEY_PREFIX}, this one has {0}")]
    Length(usize),
    #[error("letter {at} of the key is {letter:?}, which no key contains (a-z and 2-7 only)")]
    Letter { at: usize, letter: char },
    #[error("the key was mistyped: its check letters do not fit the others")]
    Check,
    #[error("the key's base64 is damaged")]
    Base64,
}

/// The y coordinates of the points of low order, little-endian without the sign of x: 0, 1, -1 and the two of order eight.
const LOW_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05,
        0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa,
        0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Whether a signature under these bytes proves nothing: a point of low order, or a y that is not below 2^255 - 19.
fn weak(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    y[31] &= 0x7f;
    let not_reduced = y[31] == 0x7f && y[1..31].iter().all(|&byte| byte == 0xff) && y[0] >= 0xed;
    not_reduced || LOW_ORDER.contains(&y)
}

impl PublicKey {
    /// The key with these 32 bytes.
    ///
    /// # Errors
    /// [`BadKey::Weak`] for an encoding that is not canonical and for a point of low order.
    pub fn new(bytes: [u8; 32]) -> Result<Self, BadKey> {
        if weak(&bytes) { Err(BadKey::Weak) } else { Ok(Self(bytes)) }
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key in its DER form, a `SubjectPublicKeyInfo`.
    pub fn to_spki(&self) -> [u8; SPKI_LEN] {
        let mut spki = [0; SPKI_LEN];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(&self.0);
        spki
    }

    /// The key in a DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`BadKey`] for anything but the 44 bytes of a valid Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, BadKey> {
        let bytes = spki.strip_prefix(&SPKI_PREFIX).and_then(|rest| rest.try_into().ok()).ok_or(BadKey::NotEd25519)?;
        Self::new(bytes)
    }

    /// 100 bits of the key's hash for people to compare: `ABCD-EFGH-IJKL-MNOP-QRST`. Not an index: others can be made to match.
    pub fn fingerprint(&self) -> String {
        let letters = BASE32_NOPAD.encode(&blake3::hash(&self.0).as_bytes()[..13]);
        let groups: Vec<&str> = (0..5).map(|group| &letters[group * 4..group * 4 + 4]).collect();
        groups.join("-")
    }

    fn check(bytes: &[u8]) -> [u8; 2] {
        let hash = blake3::hash(bytes);
        [hash.as_bytes()[0], hash.as_bytes()[1]]
    }

    fn from_line(letters: &str) -> Result<Self, BadKey> {
        let stranger = letters.chars().position(|letter| !matches!(letter, 'a'..='z' | 'A'..='Z' | '2'..='7'));
        if let Some(at) = stranger {
            return Err(BadKey::Letter { at: at + 1, letter: letters.chars().nth(at).unwrap_or(' ') });
        }
        if letters.len() != KEY_LETTERS {
            return Err(BadKey::Length(letters.len()));
        }
        let bytes = BASE32_NOPAD.decode(letters.to_ascii_uppercase().as_bytes()).map_err(|_| BadKey::Check)?;
        let (key, check) = bytes.split_first_chunk::<32>().ok_or(BadKey::Check)?;
        if check != Self::check(key) {
            return Err(BadKey::Check);
        }
        Self::new(*key)
    }

    fn from_pem(body: &str) -> Result<Self, BadKey> {
        let (body, _) = body.split_once(PEM_END).ok_or(BadKey::Base64)?;
        let packed: String = body.split_whitespace().collect();
        Self::from_spki(&BASE64.decode(packed.as_bytes()).map_err(|_| BadKey::Base64)?)
    }

    fn from_ssh(rest: &str) -> Result<Self, BadKey> {
        let field = rest.split_whitespace().next().ok_or(BadKey::Base64)?;
        let blob = BASE64.decode(field.as_bytes()).map_err(|_| BadKey::Base64)?;
        let head = [&(SSH_KIND.len() as u32).to_be_bytes(), SSH_KIND.as_bytes(), &32u32.to_be_bytes()].concat();
        let bytes = blob.strip_prefix(&head[..]).and_then(|rest| rest.try_into().ok()).ok_or(BadKey::NotEd25519)?;
        Self::new(bytes)
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    /// Reads the one-line form (`syncfs1...`, in either case), a PEM `PUBLIC KEY` and an `ssh-ed25519` line.
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        if text.get(..KEY_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(KEY_PREFIX)) {
            Self::from_line(&text[KEY_PREFIX.len()..])
        } else if let Some(body) = text.strip_prefix(PEM_BEGIN) {
            Self::from_pem(body)
        } else if text.starts_with("-----BEGIN") && text.contains("PRIVATE KEY-----") {
            Err(BadKey::Private)
        } else if let Some(rest) = text.strip_prefix(SSH_KIND).filter(|rest| rest.starts_with(char::is_whitespace)) {
            Self::from_ssh(rest)
        } else if text.starts_with("-----BEGIN") || text.starts_with("ssh-") || text.starts_with("ecdsa-") {
            Err(BadKey::NotEd25519)
        } else {
            Err(BadKey::Unknown)
        }
    }
}

impl fmt::Display for PublicKey {
    /// The one-line form: [`KEY_PREFIX`] and 55 letters, the last of which check the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.to_vec();
        bytes.extend(Self::check(&self.0));
        write!(f, "{KEY_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of RFC 8032's first test vector.
    fn sample() -> PublicKey {
        let hex = b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = data_encoding::HEXLOWER.decode(hex).expect("hex");
        PublicKey::new(bytes.try_into().expect("32 bytes")).expect("a good key")
    }

    /// A key that is printed is read back, in either case and with space around it.
    #[test]
    fn one_line_round_trip() {
        let line = sample().to_string();
        assert_eq!(line.len(), KEY_PREFIX.len() + KEY_LETTERS);
        for text in [line.clone(), line.to_uppercase(), format!("  {line}\n")] {
            assert_eq!(text.parse(), Ok(sample()));
        }
    }

    /// Whatever single letter is mistyped, the key is refused.
    #[test]
    fn every_single_letter_typo_is_caught() {
        let line = sample().to_string();
        for at in 0..line.len() {
            for letter in "abcdefghijklmnopqrstuvwxyz0123456789-".chars().filter(|&letter| !line[at..].starts_with(letter)) {
                let mut typo = line.clone();
                typo.replace_range(at..=at, &letter.to_string());
                assert!(typo.parse::<PublicKey>().is_err(), "{typo}");
            }
        }
    }

    /// A letter too few, two swapped and a letter that no key contains are told apart from each other.
    #[test]
    fn errors_say_what_is_wrong() {
        let line = sample().to_string();
        assert_eq!(line[..line.len() - 1].parse::<PublicKey>(), Err(BadKey::Length(KEY_LETTERS - 1)));
        assert_eq!(line.replacen("syncfs1", "syncfs10", 1).parse::<PublicKey>(), Err(BadKey::Letter { at: 1, letter: '0' }));
        assert_eq!("hello".parse::<PublicKey>(), Err(BadKey::Unknown));
        assert_eq!("ssh-rsa AAAA".parse::<PublicKey>(), Err(BadKey::NotEd25519));
        assert_eq!("-----BEGIN PRIVATE KEY-----\nAAAA".parse::<PublicKey>(), Err(BadKey::Private));
        let swapped = format!("{}{}{}{}", &line[..20], &line[21..22], &line[20..21], &line[22..]);
        assert_eq!(swapped.parse::<PublicKey>(), Err(BadKey::Check));
    }

    /// Keys as OpenSSL and OpenSSH print them are the same keys.
    #[test]
    fn pem_and_ssh_forms() {
        let pem = format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", BASE64.encode(&sample().to_spki()));
        assert_eq!(pem.parse(), Ok(sample()));
        let blob = [b"\0\0\0\x0bssh-ed25519\0\0\0\x20".as_slice(), sample().as_bytes()].concat();
        assert_eq!(format!("ssh-ed25519 {} me@host", BASE64.encode(&blob)).parse(), Ok(sample()));
        assert_eq!(format!("ssh-ed25519 {}", BASE64.encode(&blob[..40])).parse::<PublicKey>(), Err(BadKey::NotEd25519));
        assert_eq!("ssh-ed25519 ???".parse::<PublicKey>(), Err(BadKey::Base64));
    }

    /// Keys in whose name anybody can sign are refused in every form.
    #[test]
    fn weak_keys_are_refused() {
        for y in LOW_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                assert_eq!(PublicKey::new(bytes), Err(BadKey::Weak));
                assert_eq!(PublicKey::from_spki(&[&SPKI_PREFIX[..], &bytes].concat()), Err(BadKey::Weak));
            }
        }
        for low in 0xed..=0xff {
            let mut bytes = [0xff; 32];
            bytes[0] = low;
            assert_eq!(PublicKey::new(bytes), Err(BadKey::Weak), "p + {}", low - 0xed);
        }
    }

    /// Only the 44 bytes of an Ed25519 key are a key on the wire.
    #[test]
    fn spki_shape() {
        assert_eq!(PublicKey::from_spki(&sample().to_spki()), Ok(sample()));
        assert_eq!(PublicKey::from_spki(&sample().to_spki()[..43]), Err(BadKey::NotEd25519));
        assert_eq!(PublicKey::from_spki(&[&sample().to_spki()[..], &[0]].concat()), Err(BadKey::NotEd25519));
    }

    /// A fingerprint is five groups of four letters.
    #[test]
    fn fingerprint_shape() {
        let fingerprint = sample().fingerprint();
        assert_eq!(fingerprint.split('-').map(str::len).collect::<Vec<_>>(), [4; 5]);
    }
}
