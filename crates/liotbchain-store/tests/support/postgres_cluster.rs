//! A PostgreSQL cluster of a test's own, which it may restart, configure and break.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio_postgres::NoTls;

/// A running cluster on a free port, gone when the test is.
pub struct Cluster {
    pub port: u16,
    folder: PathBuf,
    bin: PathBuf,
    /// Stops the cluster when its standard input ends: on drop, and also when this process is killed.
    keeper: Child,
}

impl Cluster {
    /// Makes and starts a cluster that trusts its user `postgres`.
    pub fn start() -> Self {
        let cluster = Self::prepare();
        cluster.run(
            "initdb",
            &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        );
        cluster.configure("max_wal_senders = 4");
        cluster.control("start");
        cluster
    }

    /// Makes and starts a standby that follows another cluster, under the name `standby`.
    pub fn standby_of(primary: &Self) -> Self {
        let standby = Self::prepare();
        let source =
            format!("--dbname=host=127.0.0.1 port={} user=postgres application_name=standby", primary.port);
        standby.run(
            "pg_basebackup",
            &["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", &source],
        );
        standby.control("start");
        standby
    }

    fn prepare() -> Self {
        let bin = find_binaries().expect("PostgreSQL is not installed: apt-get install postgresql");
        let folder = tempfile::Builder::new().prefix("liotbchain-pg-").tempdir().unwrap().keep();
        if is_root() {
            finish(Command::new("chown").arg("postgres").arg(&folder));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keeper = as_postgres(Path::new("/bin/sh"))
            .args(["-c", r#"cat; "$0" stop --mode=immediate --silent --pgdata "$1/data"; rm -rf "$1""#])
            .args([&bin.join("pg_ctl"), &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C that ends the test must not end what cleans up after it.
            .process_group(0)
            .spawn()
            .unwrap();
        Self { port, folder, bin, keeper }
    }

    /// Returns the address of a database. TLS is for the tests that ask for it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Makes an empty database and returns its address.
    pub async fn make_database(&self, database: &str) -> String {
        self.execute("postgres", &format!("CREATE DATABASE {database}")).await;
        self.url(database)
    }

    /// Runs SQL in a database.
    pub async fn execute(&self, database: &str, sql: &str) {
        self.rows(database, sql).await;
    }

    /// Runs SQL in a database and returns the first column of all rows, as text.
    pub async fn rows(&self, database: &str, sql: &str) -> Vec<String> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.unwrap();
        drop(client);
        let _ = connection.await.unwrap();
        let first = |message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        };
        messages.into_iter().filter_map(first).collect()
    }

    /// Adds a line to postgresql.conf.
    pub fn configure(&self, line: &str) {
        let file = self.folder.join("data/postgresql.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}\n{line}\n")).unwrap();
    }

    /// Replaces pg_hba.conf.
    pub fn replace_hba(&self, text: &str) {
        fs::write(self.folder.join("data/pg_hba.conf"), format!("{text}\n")).unwrap();
    }

    /// Puts a file into the data folder that only the server may read.
    pub fn put(&self, name: &str, from: &Path) {
        let file = self.folder.join("data").join(name);
        fs::copy(from, &file).unwrap();
        finish(Command::new("chmod").arg("600").arg(&file));
        if is_root() {
            finish(Command::new("chown").arg("postgres").arg(&file));
        }
    }

    /// Runs `pg_ctl restart`.
    pub fn restart(&self, mode: &str) {
        self.control_with("restart", &[&format!("--mode={mode}")]);
    }

    /// Runs `pg_ctl stop`.
    pub fn stop(&self, mode: &str) {
        self.control_with("stop", &[&format!("--mode={mode}")]);
    }

    /// Runs `pg_ctl` with an action such as `start`, `reload` or `promote`.
    pub fn control(&self, action: &str) {
        self.control_with(action, &[]);
    }

    fn control_with(&self, action: &str, more: &[&str]) {
        let options = format!("-p {} -h 127.0.0.1 -k {}", self.port, self.folder.display());
        let log = self.folder.join("log");
        let mut arguments = vec![action, "--silent"];
        if action != "reload" {
            arguments.extend(["--wait", "--timeout=60"]);
        }
        if matches!(action, "start" | "restart") {
            arguments.extend(["--options", &options, "--log", log.to_str().unwrap()]);
        }
        arguments.extend(more);
        self.run("pg_ctl", &arguments);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = as_postgres(&self.bin.join(program));
        finish(command.args(arguments).arg("--pgdata").arg(self.folder.join("data")));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Returns where PostgreSQL's programs are: in `TEST_POSTGRES_BIN`, or the newest on this machine. On Debian, they are
/// not on the path.
fn find_binaries() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("TEST_POSTGRES_BIN") {
        return Some(folder.into());
    }
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let newest = installed.filter_map(|entry| Some((version(&entry)?, entry.path().join("bin")))).max();
    let on_path =
        std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| folder.join("initdb").exists());
    newest.map(|(_, bin)| bin).filter(|bin| bin.join("initdb").exists()).or(on_path)
}

fn is_root() -> bool {
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
fn finish(command: &mut Command) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("output");
    let output = fs::File::create(&path).unwrap();
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}\n{}", fs::read_to_string(&path).unwrap());
}
