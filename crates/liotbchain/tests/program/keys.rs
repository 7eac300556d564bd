use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::running::run;

#[test]
fn a_key_is_made_once_and_only_its_public_half_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder, "keys show").failed(1, &["there is no key", "hint: `liotbchain keys generate`"]);
    let made = run(&folder, "keys generate --kind p256");
    assert!(!format!("{made:?}").contains("PRIVATE"));
    let path = folder.path().join("liotbchain-data/sender_key.pem");
    let pem = fs::read_to_string(&path).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    run(&folder, "keys generate").failed(1, &["exists and is left as it is"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), pem);
    let shown = run(&folder, "keys show").stdout();
    assert_eq!(shown, made.stdout());
    assert!(shown.starts_with("algorithm   P-256\nkey id      ") && !shown.contains("PRIVATE"));

    let told: Value = serde_json::from_str(&run(&folder, "keys show --json").stdout()).unwrap();
    assert_eq!((&told["kind"], &told["algorithm"]), (&"p256".into(), &"P-256".into()));
    assert!(shown.contains(told["public_key"].as_str().unwrap()));
    assert!(shown.contains(told["key_id"].as_str().unwrap()));
}

#[test]
fn a_key_can_be_made_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let made: Value =
        serde_json::from_str(&run(&folder, "keys generate --out other/key.pem --json").stdout()).unwrap();
    assert_eq!(made["file"], "other/key.pem");
    let shown: Value =
        serde_json::from_str(&run(&folder, "keys show other/key.pem --json").stdout()).unwrap();
    assert_eq!(made, shown);
    assert!(!folder.path().join("liotbchain-data").exists());
}

#[test]
fn what_is_no_key_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.pem");
    fs::write(&path, "buy milk").unwrap();
    run(&folder, "keys show notes.pem").failed(1, &["notes.pem is not a usable private key"]);
    run(&folder, "keys generate --out notes.pem").failed(1, &["notes.pem exists"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "buy milk");
}
