//! Runs a test of this program once more, in a process whose surroundings are not so good.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const FOLDER: &str = "LIOTBCHAIN_TEST_FOLDER";

/// Returns the folder to work in, in the process that [`rerun`] started; none in the first one.
pub fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs the test of this name once more, by `wrapper`, which gets this program's path and arguments appended.
pub fn rerun(test: &str, folder: &Path, wrapper: &mut Command) {
    // Somebody else may not be allowed to read where this program lies.
    let program = folder.join("test-program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let work = folder.join("work");
    fs::create_dir(&work).unwrap();
    for folder in [folder, &work] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    wrapper.arg(&program).args(["--exact", test, "--nocapture"]).env(FOLDER, &work);
    let output = wrapper.output().unwrap_or_else(|error| panic!("{wrapper:?}: {error}"));
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    // A wrong name would run no test, and succeed.
    assert!(output.status.success() && text.contains("1 passed"), "{wrapper:?}: {}\n{text}", output.status);
}
