//! The keys of simulated devices that sign: each has its own, and the same in every run.
//!
//! One secret is drawn once and kept, readable to its owner alone; the key of a device follows from it and the device's
//! name. So 100,000 devices need one small file, and a key cannot be had from what is public, such as the seed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_sender::SigningKey;

use crate::Failure;
use crate::data_dir::make_private;

/// Name of the secret's file in `DATA_DIR`.
pub const SECRET_FILE: &str = "device_secret";
const SECRET_SIZE: usize = 32;
/// Keeps these keys apart from any others that somebody derives from the same secret.
const SALT: &[u8] = b"liotbchain simulated device key 1";
/// What precedes the 32 bytes of an Ed25519 key in PKCS#8, RFC 8410, section 7.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// From which the keys of devices follow.
pub struct DeviceKeys(Prk);

impl DeviceKeys {
    /// Reads the secret of a data folder; draws it where there is none yet.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or written, or holds something else.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join(SECRET_FILE);
        let secret = match read(&path)? {
            Some(secret) => secret,
            None => create(data_dir, &path)?,
        };
        Ok(Self(Salt::new(HKDF_SHA256, SALT).extract(&secret)))
    }

    /// Returns the key of the device of this name.
    pub fn key(&self, device: &str) -> SigningKey {
        let mut bytes = PKCS8_HEAD.to_vec();
        let mut seed = [0; 32];
        let info = [device.as_bytes()];
        let filled = self.0.expand(&info, Ed25519Seed).and_then(|output| output.fill(&mut seed));
        filled.expect("32 bytes are no more than HKDF-SHA256 gives");
        bytes.extend_from_slice(&seed);
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(bytes));
        SigningKey::from_pem(pem.as_bytes()).expect("any 32 bytes are an Ed25519 key")
    }
}

struct Ed25519Seed;

impl KeyType for Ed25519Seed {
    fn len(&self) -> usize {
        32
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let mut secret = Vec::new();
    let opened = fs::File::open(path);
    // A device or another endless thing is not read to its end.
    match opened.and_then(|file| file.take(SECRET_SIZE as u64 + 1).read_to_end(&mut secret)) {
        Ok(SECRET_SIZE) => Ok(Some(secret)),
        Ok(_) => Err(Failure::failed(format!("{} is not a secret of {SECRET_SIZE} bytes", path.display()))
            .with_hint("put it back from a copy, or move it away: all devices then get new keys")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("{} cannot be read: {error}", path.display()))),
    }
}

/// Draws a secret. Where another run was quicker, its secret is the one.
fn create(data_dir: &Path, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut secret = vec![0; SECRET_SIZE];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| Failure::failed("the system gives no random numbers"))?;
    let unfinished = data_dir.join(format!("{SECRET_FILE}.{}", std::process::id()));
    let written = write(data_dir, &unfinished, path, &secret);
    // It has its name by now, or is of no use.
    let _ = fs::remove_file(&unfinished);
    match written {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read(path)? {
            Some(secret) => Ok(secret),
            None => Err(not_writable(path, &error)),
        },
        Err(error) => Err(not_writable(path, &error)),
    }
}

/// The name appears with the whole content behind it, or not at all, and never replaces another secret.
fn write(data_dir: &Path, unfinished: &PathBuf, path: &Path, secret: &[u8]) -> io::Result<()> {
    make_private(data_dir)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(unfinished)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::hard_link(unfinished, path)
}

fn not_writable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be written: {error}", path.display()))
        .with_hint("set DATA_DIR to a folder that this user may write to")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(keys: &DeviceKeys, device: &str) -> String {
        keys.key(device).public_key().key_id().to_string()
    }

    #[test]
    fn a_device_has_its_own_key_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::load_or_create(folder.path()).unwrap();
        assert_ne!(id(&keys, "gps-1"), id(&keys, "gps-2"));
        let again = DeviceKeys::load_or_create(folder.path()).unwrap();
        assert_eq!(id(&keys, "gps-1"), id(&again, "gps-1"));
        let elsewhere = tempfile::tempdir().unwrap();
        let others = DeviceKeys::load_or_create(elsewhere.path()).unwrap();
        assert_ne!(id(&keys, "gps-1"), id(&others, "gps-1"));
    }

    #[test]
    fn the_key_signs() {
        let folder = tempfile::tempdir().unwrap();
        let key = DeviceKeys::load_or_create(folder.path()).unwrap().key("gps-1");
        let signature = key.sign(b"reading");
        assert_eq!(key.public_key().verify(b"reading", &signature), Ok(()));
    }

    #[cfg(unix)]
    #[test]
    fn the_secret_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        DeviceKeys::load_or_create(&data_dir).unwrap();
        let mode = data_dir.join(SECRET_FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_secret_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SECRET_FILE);
        for size in [0, SECRET_SIZE - 1, SECRET_SIZE + 1] {
            fs::write(&path, vec![7; size]).unwrap();
            assert!(DeviceKeys::load_or_create(folder.path()).is_err(), "{size}");
            assert_eq!(fs::read(&path).unwrap().len(), size);
        }
    }
}
