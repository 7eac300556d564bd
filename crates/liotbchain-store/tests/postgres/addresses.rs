//! Which servers are taken, which are refused, and what the refusal says.

use std::{process::Command, time::Duration};

use liotbchain_store::{OpenOptions, Status, Store, StoreError, postgres::PostgresStore};

use crate::{
    chain::{Chain, Device, START_MS, ids},
    cluster::Cluster,
    open,
};

/// Returns the refusal's problem, after checking that it has a cure and tells no password.
async fn refusal(url: &str) -> String {
    let options = OpenOptions { timeout: Duration::from_secs(3), ..OpenOptions::default() };
    match PostgresStore::open(url, &options).await {
        Err(StoreError::Config { problem, cure }) => {
            assert!(
                !cure.is_empty() && !cure.contains("geheim") && !problem.contains("geheim"),
                "{problem}: {cure}"
            );
            problem
        }
        Err(other) => panic!("{url}: {other}"),
        Ok(_) => panic!("{url} was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_or_login_says_what_to_do() {
    let cluster = Cluster::start();
    let port = cluster.port;
    cluster
        .execute(
            "postgres",
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE pi LOGIN PASSWORD 'geheim'",
        )
        .await;
    cluster.replace_hba("host all postgres 127.0.0.1/32 trust\nhost postgres pi 127.0.0.1/32 scram-sha-256");
    cluster.control("reload");

    let no_database = refusal(&cluster.url("nowhere")).await;
    assert!(no_database.contains("\"nowhere\" does not exist"), "{no_database}");
    let wrong = refusal(&format!("postgres://pi:geheimx@127.0.0.1:{port}/postgres")).await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let missing = refusal(&format!("postgres://pi@127.0.0.1:{port}/postgres")).await;
    assert!(missing.contains("password missing"), "{missing}");
    let not_allowed = refusal(&format!("postgres://pi:geheim@127.0.0.1:{port}/template1")).await;
    assert!(not_allowed.contains("pg_hba.conf"), "{not_allowed}");
    let may_not_create = refusal(&format!("postgres://pi:geheim@127.0.0.1:{port}/postgres")).await;
    assert!(may_not_create.contains("permission denied"), "{may_not_create}");
    // The cure that the refusal gives.
    cluster.execute("postgres", "CREATE SCHEMA liotbchain AUTHORIZATION pi").await;
    let store = open(&format!("host=127.0.0.1 port={port} user=pi password=geheim dbname=postgres")).await;
    assert_eq!(store.location(), format!("postgres://pi@127.0.0.1:{port}/postgres"));

    let url = "postgres://pi:geheim@127.0.0.1:1/chain";
    let Err(StoreError::Unavailable(reason)) = PostgresStore::open(url, &OpenOptions::default()).await else {
        panic!()
    };
    assert!(
        reason.contains("127.0.0.1:1") && reason.contains("refused") && reason.contains("DATABASE_URL"),
        "{reason}"
    );
    assert!(!reason.contains("geheim"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_may_be_apart_from_the_address() {
    if let Ok(url) = std::env::var("PASSWORD_APART_FOR") {
        // The same test in another process, whose environment tells the password.
        return open(&url).await.ping().await.unwrap();
    }
    let cluster = Cluster::start();
    cluster
        .execute(
            "postgres",
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE pi LOGIN PASSWORD 'ge:heim';
             CREATE SCHEMA liotbchain AUTHORIZATION pi",
        )
        .await;
    cluster.replace_hba("host all postgres 127.0.0.1/32 trust\nhost all pi 127.0.0.1/32 scram-sha-256");
    cluster.control("reload");
    let url = format!("postgres://pi@127.0.0.1:{}/postgres", cluster.port);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("pgpass");
    std::fs::write(&file, format!("127.0.0.1:{}:*:pi:ge\\:heim\n", cluster.port)).unwrap();
    let run = |name: &str, value: &std::ffi::OsStr| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "addresses::the_password_may_be_apart_from_the_address"])
            .env_remove("PGPASSWORD")
            .env_remove("PGPASSFILE")
            .env("PASSWORD_APART_FOR", &url)
            .env(name, value)
            .output()
            .unwrap();
        child.status.success()
    };
    assert!(run("PGPASSWORD", "ge:heim".as_ref()));
    let allow = |mode| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(0o600);
    assert!(run("PGPASSFILE", file.as_ref()));
    allow(0o640);
    assert!(!run("PGPASSFILE", file.as_ref()), "others can read it");
    assert!(!run("PGPASSWORD", "geheim".as_ref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_server_that_forgets_what_it_acknowledged() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    cluster.execute("postgres", "ALTER DATABASE chain SET synchronous_commit = off").await;
    assert!(refusal(&url).await.contains("synchronous_commit=off"));
    cluster.execute("postgres", "ALTER DATABASE chain RESET synchronous_commit").await;
    open(&url).await.close().await;

    cluster.configure("fsync = off");
    cluster.control("reload");
    // The postmaster hands the new setting to the next process some time after the reload.
    let mut problem = None;
    for _ in 0..100 {
        match PostgresStore::open(&url, &OpenOptions::default()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => {
                problem = Some(error.to_string());
                break;
            }
        }
    }
    assert!(problem.expect("it is refused").contains("fsync=off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_need_a_synchronous_standby_and_then_survive_a_failover() {
    let primary = Cluster::start();
    primary.make_database("chain").await;
    let standby = Cluster::standby_of(&primary);
    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/chain", standby.port, primary.port);
    assert!(refusal(&url).await.contains("no synchronous standby"));
    let lossy = OpenOptions { allow_lossy_failover: true, ..OpenOptions::default() };
    PostgresStore::open(&url, &lossy).await.unwrap().close().await;

    primary.configure("synchronous_standby_names = 'standby'");
    primary.restart("fast");
    // The standby stands first, but cannot be written.
    let store = open(&url).await;
    let chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let admitted = Device::new(1).count(0..10);
    store.admit(&admitted, START_MS).await.unwrap();

    primary.stop("immediate");
    standby.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''").await;
    standby.control("promote");
    // It has no standby itself now, so that it is refused until its operator accepts that.
    assert!(matches!(store.ping().await, Err(StoreError::Config { .. } | StoreError::Unavailable(_))));
    let store = PostgresStore::open(&url, &lossy).await.unwrap();
    assert_eq!(store.look_up(&ids(&admitted)).await.unwrap(), vec![Some(Status::Pending); 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_over_a_host_that_takes_the_connection_and_says_nothing() {
    let cluster = Cluster::start();
    cluster.make_database("chain").await;
    let stuck = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stuck_port = stuck.local_addr().unwrap().port();
    let url = format!("postgres://postgres@127.0.0.1:{stuck_port},127.0.0.1:{}/chain", cluster.port);
    let options = OpenOptions { allow_lossy_failover: true, timeout: Duration::from_secs(3) };
    PostgresStore::open(&url, &options).await.unwrap().ping().await.unwrap();

    let alone = format!("postgres://postgres@127.0.0.1:{stuck_port}/chain");
    let Err(error) = PostgresStore::open(&alone, &options).await else { panic!() };
    assert!(
        matches!(&error, StoreError::Unavailable(reason) if reason.contains("no answer in time")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_used_where_it_is_offered_and_verified_where_it_is_required() {
    if let Ok(url) = std::env::var("REQUIRE_TLS_AT") {
        // The same test in another process, whose environment names the root certificate.
        let rejected =
            PostgresStore::open(&url.replace("localhost", "127.0.0.1"), &OpenOptions::default()).await;
        assert!(matches!(rejected, Err(StoreError::Config { .. })), "the certificate is for another name");
        return open(&url).await.ping().await.unwrap();
    }
    let cluster = Cluster::start();
    let url =
        cluster.make_database("chain").await.replace("127.0.0.1", "localhost").replace("sslmode=disable", "");
    let required = format!("{url}sslmode=require");
    assert!(refusal(&required).await.contains("offers no TLS"));
    open(&url).await.close().await;

    let folder = tempfile::TempDir::new().unwrap();
    let [key, certificate] = ["server.key", "server.crt"].map(|name| folder.path().join(name));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is not installed: apt-get install openssl");
    assert!(made.status.success(), "{made:?}");
    cluster.put("server.key", &key);
    cluster.put("server.crt", &certificate);
    cluster.configure("ssl = on");
    cluster.restart("fast");

    let store = open(&url).await;
    let encrypted =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'liotbchain'";
    let encrypted = cluster.rows("chain", encrypted).await;
    assert!(!encrypted.is_empty() && encrypted.iter().all(|ssl| ssl == "t"), "{encrypted:?}");
    store.close().await;
    assert!(refusal(&required).await.contains("certificate"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "addresses::tls_is_used_where_it_is_offered_and_verified_where_it_is_required"])
        .env("REQUIRE_TLS_AT", &required)
        .env("SSL_CERT_FILE", &certificate)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
