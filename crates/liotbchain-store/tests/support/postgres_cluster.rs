//! A PostgreSQL cluster of a test's own: made in a temporary folder, on a free port, gone when the test is.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running cluster that trusts its user `postgres`.
pub struct PostgresCluster {
    port: u16,
    /// Stops the cluster when its standard input ends: on drop, and also when this process is killed.
    keeper: Child,
}

impl PostgresCluster {
    /// Makes and starts a cluster.
    ///
    /// # Panics
    ///
    /// Where PostgreSQL is not installed: a test that needs it fails, and says how to install it.
    pub fn start() -> Self {
        let bin = find_binaries().expect("PostgreSQL is not installed: apt-get install postgresql");
        let folder = tempfile::Builder::new().prefix("liotbchain-pg-").tempdir().unwrap().keep();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let data = folder.join("data");
        run(as_postgres(&bin.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--pgdata",
            ])
            .arg(&data));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = format!("-p {port} -h 127.0.0.1 -k {}", folder.display());
        run(as_postgres(&bin.join("pg_ctl"))
            .args(["start", "--wait", "--timeout=60", "--silent", "--options", &options, "--log"])
            .arg(folder.join("log"))
            .arg("--pgdata")
            .arg(&data));
        let keeper = as_postgres(Path::new("/bin/sh"))
            .args(["-c", r#"cat; "$0" stop --mode=immediate --silent --pgdata "$1/data"; rm -rf "$1""#])
            .args([&bin.join("pg_ctl"), &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A Ctrl-C that ends the test must not end what cleans up after it.
            .process_group(0)
            .spawn()
            .unwrap();
        Self { port, keeper }
    }

    /// Returns a connection string of the superuser, without a database.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }
}

impl Drop for PostgresCluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Returns where the newest PostgreSQL's programs are: on Debian, they are not on the path.
fn find_binaries() -> Option<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let newest = installed.filter_map(|entry| Some((version(&entry)?, entry.path().join("bin")))).max();
    let on_path =
        std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| folder.join("initdb").exists());
    newest.map(|(_, bin)| bin).filter(|bin| bin.join("initdb").exists()).or(on_path)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut runuser = Command::new("runuser");
        runuser.args(["-u", "postgres", "--"]).arg(program);
        runuser
    } else {
        Command::new(program)
    };
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// Runs a command to its end. Its output goes to a file: a server that it starts would keep a pipe open.
fn run(command: &mut Command) {
    let output = tempfile::tempfile().unwrap();
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !status.success() {
        use std::io::{Read, Seek};
        let (mut output, mut text) = (output, String::new());
        output.rewind().and_then(|()| output.read_to_string(&mut text).map(|_| ())).unwrap();
        panic!("{command:?}: {status}\n{text}");
    }
}
