use std::{
    collections::HashSet,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{Arc, Barrier},
};

use super::*;

const KINDS: [KeyKind; 3] = [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::P256];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn signs_what_its_public_key_verifies() {
    for kind in KINDS {
        let key = SigningKey::generate(kind).unwrap();
        let signature = key.sign(b"a reading");
        assert_eq!(key.public_key().verify(b"a reading", &signature), Ok(()), "{kind}");
        assert!(key.public_key().verify(b"another", &signature).is_err(), "{kind}");
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert!("dsa".parse::<KeyKind>().is_err());
}

#[test]
fn openssl_verifies_the_rsa_signature_with_the_longest_salt() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let key = SigningKey::create(path("key.pem").as_ref(), KeyKind::Rsa).unwrap();
    fs::write(path("payload"), b"a reading").unwrap();
    fs::write(path("signature"), key.sign(b"a reading")).unwrap();
    assert_eq!(openssl(&["pkey", "-in", &path("key.pem"), "-pubout"]), key.public_key().to_pem());
    fs::write(path("public.pem"), key.public_key().to_pem()).unwrap();
    // As the Python original checks it: PSS, MGF1 with SHA-256, 2048 / 8 - 34 bytes of salt.
    let (public, signature, payload) = (path("public.pem"), path("signature"), path("payload"));
    let verified = openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        &public,
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:222",
        "-sigopt",
        "rsa_mgf1_md:sha256",
        "-signature",
        &signature,
        &payload,
    ]);
    assert_eq!(verified.trim(), "Verified OK");
}

#[test]
fn keeps_the_key_for_the_owner_alone_and_uses_it_again() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/deeper").join(KEY_FILE);
        let made = SigningKey::load_or_create(&path, kind).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let again = SigningKey::load_or_create(&path, kind).unwrap();
        assert_eq!(made.public_key(), again.public_key());
        assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }
}

#[test]
fn reads_keys_that_openssl_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KEY_FILE);
    let name = path.to_str().unwrap();
    for (kind, options) in [
        (KeyKind::Ed25519, &["-algorithm", "ed25519"][..]),
        (KeyKind::Rsa, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
        (KeyKind::P256, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ] {
        openssl(&[&["genpkey", "-out", name], options].concat());
        let key = SigningKey::load_or_create(&path, kind).unwrap();
        assert_eq!(key.public_key().to_pem(), openssl(&["pkey", "-in", name, "-pubout"]));
        assert_eq!(key.public_key().verify(b"x", &key.sign(b"x")), Ok(()), "{kind}");
    }
}

#[test]
fn two_starts_at_one_moment_keep_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join(KEY_FILE));
    let start = Arc::new(Barrier::new(8));
    let threads = Vec::from_iter((0..8).map(|_| {
        let (path, start) = (Arc::clone(&path), Arc::clone(&start));
        std::thread::spawn(move || {
            start.wait();
            SigningKey::load_or_create(&path, KeyKind::Ed25519).unwrap().public_key().key_id()
        })
    }));
    let ids: HashSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(ids.into_iter().next(), Some(SigningKey::load(&path).unwrap().public_key().key_id()));
}

#[test]
fn refuses_a_key_of_another_kind_and_says_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KEY_FILE);
    SigningKey::create(&path, KeyKind::P256).unwrap();
    let error = SigningKey::load_or_create(&path, KeyKind::Rsa).unwrap_err();
    assert!(matches!(error, SignerError::OtherKind { found: KeyKind::P256, wanted: KeyKind::Rsa, .. }));
    let text = error.to_string();
    assert!(text.contains("SENDER_KEY asks for rsa") && text.contains("set SENDER_KEY=p256"), "{text}");
}

#[test]
fn never_overwrites_a_file_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KEY_FILE);
    let whole = String::from_utf8({
        SigningKey::create(&path, KeyKind::Ed25519).unwrap();
        fs::read(&path).unwrap()
    })
    .unwrap();
    let flipped = whole.replacen("MC4CAQ", "MC4CAA", 1);
    assert_ne!(flipped, whole);
    let large = "x".repeat(20_000);
    let public = SigningKey::generate(KeyKind::Ed25519).unwrap().public_key().to_pem();
    for damaged in ["", "\0\0\0\0", &whole[..60], &flipped, &large, &public] {
        fs::write(&path, damaged).unwrap();
        let error = SigningKey::load_or_create(&path, KeyKind::Ed25519).unwrap_err();
        assert!(matches!(error, SignerError::Damaged { .. }), "{damaged:?}: {error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        assert!(matches!(SigningKey::create(&path, KeyKind::Rsa), Err(SignerError::Exists { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}

#[test]
fn refuses_keys_that_no_chain_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KEY_FILE);
    let name = path.to_str().unwrap();
    openssl(&["genpkey", "-out", name, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let error = SigningKey::load(&path).unwrap_err();
    assert!(matches!(error, SignerError::Damaged { fault: KeyFault::NotPkcs8, .. }), "{error}");
    openssl(&[
        "genpkey",
        "-out",
        name,
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-pkeyopt",
        "rsa_keygen_pubexp:3",
    ]);
    let error = SigningKey::load(&path).unwrap_err();
    assert!(
        matches!(error, SignerError::Damaged { fault: KeyFault::Refused(PublicKeyError::RsaExponent), .. }),
        "{error}"
    );
}

#[test]
fn says_which_folder_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = SigningKey::load_or_create(&folder.path().join("file/data").join(KEY_FILE), KeyKind::Ed25519)
        .unwrap_err();
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn shows_no_key_material() {
    let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
    assert_eq!(format!("{key:?}"), format!("SigningKey(PublicKey(Ed25519, {}))", key.public_key().key_id()));
}
