//! A PostgreSQL cluster of the benchmark's own, gone when it ends.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context;

/// A running cluster on a free port, with PostgreSQL's default settings.
pub struct Cluster {
    port: u16,
    folder: PathBuf,
    bin: PathBuf,
    /// Stops the cluster when its standard input ends: on drop, and also when this process is killed.
    keeper: Child,
}

impl Cluster {
    pub fn start() -> anyhow::Result<Self> {
        let bin = find_binaries().context("PostgreSQL is not installed: apt-get install postgresql")?;
        let folder = tempfile::Builder::new().prefix("liotbchain-bench-").tempdir()?.keep();
        if is_root()? {
            finish(Command::new("chown").arg("postgres").arg(&folder))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let keeper = as_postgres(Path::new("/bin/sh"))?
            .args(["-c", r#"cat; "$0" stop --mode=immediate --silent --pgdata "$1/data"; rm -rf "$1""#])
            .args([&bin.join("pg_ctl"), &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C that ends the benchmark must not end what cleans up after it.
            .process_group(0)
            .spawn()?;
        let cluster = Self { port, folder, bin, keeper };
        cluster.run(
            "initdb",
            &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        )?;
        let options = format!("-p {port} -h 127.0.0.1 -k {}", cluster.folder.display());
        let log = cluster.folder.join("log");
        let log = log.to_str().context("a path that is text")?;
        cluster.run("pg_ctl", &["start", "--silent", "--wait", "--options", &options, "--log", log])?;
        Ok(cluster)
    }

    /// Makes an empty database and returns its address.
    pub fn make_database(&self, name: &str) -> anyhow::Result<String> {
        let port = self.port.to_string();
        finish(as_postgres(&self.bin.join("createdb"))?.args(["-h", "127.0.0.1", "-p", &port, name]))?;
        Ok(format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable"))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = as_postgres(&self.bin.join(program))?;
        finish(command.args(arguments).arg("--pgdata").arg(self.folder.join("data")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It stops the cluster, or nothing can.
        let _ = self.keeper.wait();
    }
}

/// Returns where PostgreSQL's programs are: on Debian, not on the path.
fn find_binaries() -> Option<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let newest = installed.filter_map(|entry| Some((version(&entry)?, entry.path().join("bin")))).max();
    let on_path =
        || std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| folder.join("initdb").exists());
    newest.map(|(_, bin)| bin).filter(|bin| bin.join("initdb").exists()).or_else(on_path)
}

fn is_root() -> anyhow::Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> anyhow::Result<Command> {
    let mut command = if is_root()? {
        let mut runuser = Command::new("runuser");
        runuser.args(["-u", "postgres", "--"]).arg(program);
        runuser
    } else {
        Command::new(program)
    };
    command.current_dir("/").env("LC_ALL", "C").env("PGUSER", "postgres");
    Ok(command)
}

/// Runs a command to its end. Its output goes to a file: a server that it starts would keep a pipe open.
fn finish(command: &mut Command) -> anyhow::Result<()> {
    let output = tempfile::NamedTempFile::new()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(output.reopen()?)
        .stderr(output.reopen()?)
        .status()
        .with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?}: {status}\n{}", fs::read_to_string(output.path())?);
    Ok(())
}
