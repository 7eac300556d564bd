//! Our tables, in a schema of their own: the tables of the Python original, which has one called `blocks` too, can lie in
//! the same database.

use tokio_postgres::Row;

use super::{
    fault::{Failure, Fault},
    session::Session,
};
use crate::StoreError;

/// What brings the schema from each format to the next, the first from nothing to format 1.
const MIGRATIONS: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// Names the lock under which one process at a time migrates: "liotbch" in ASCII, and no more than a number that others
/// will hardly choose.
const MIGRATION_LOCK: i64 = 0x6c_69_6f_74_62_63_68;

/// Makes the tables, or brings them to the newest format. Several processes may do so at once.
///
/// # Errors
///
/// [`StoreError::Newer`] for tables of a newer version; [`StoreError::Config`] where the user may not make tables.
pub(super) async fn migrate(session: &Session) -> Result<(), Failure> {
    session.begin().await?;
    session.query("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    let known = MIGRATIONS.len() as i64;
    let found = find_format(session).await?;
    if found > known {
        return Err(StoreError::Newer { found, known }.into());
    }
    for (format, migration) in (1i64..).zip(MIGRATIONS).skip_while(|(format, _)| *format <= found) {
        tracing::info!(format, "making the tables of this format in PostgreSQL");
        run(session, format, migration).await.map_err(|fault| match fault.is_forbidden() {
            true => Failure::Refused(forbidden(&fault)),
            false => fault.into(),
        })?;
    }
    Ok(())
}

/// Returns the format of the tables, 0 where there are none.
async fn find_format(session: &Session) -> Result<i64, Failure> {
    let rows = session.query("SELECT to_regclass('liotbchain.meta') IS NOT NULL", &[]).await?;
    if !rows.iter().any(|row| row.get(0)) {
        return Ok(0);
    }
    let rows = match session.query("SELECT format FROM liotbchain.meta", &[]).await {
        Err(fault) if fault.is_forbidden() => return Err(Failure::Refused(forbidden(&fault))),
        rows => rows?,
    };
    match rows.first() {
        Some(row) => Ok(row.get(0)),
        None => Err(StoreError::Corrupt("liotbchain.meta tells no format".to_owned()).into()),
    }
}

async fn run(session: &Session, format: i64, migration: &str) -> Result<(), Fault> {
    if format == 1 {
        // CREATE SCHEMA IF NOT EXISTS asks for a privilege that a user for whom the schema was made does not need.
        let rows = session.query("SELECT to_regnamespace('liotbchain') IS NULL", &[]).await?;
        if rows.iter().any(|row| row.get(0)) {
            session.batch("CREATE SCHEMA liotbchain").await?;
        }
        session
            .batch(
                "CREATE TABLE liotbchain.meta (
                     singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
                     format    bigint NOT NULL
                 );
                 INSERT INTO liotbchain.meta (format) VALUES (0)",
            )
            .await?;
    }
    session.batch(migration).await?;
    session.execute("UPDATE liotbchain.meta SET format = $1", &[&format]).await?;
    Ok(())
}

fn forbidden(fault: &Fault) -> StoreError {
    StoreError::Config {
        problem: format!("the tables of the chain cannot be made or used: {fault}"),
        cure: "let the owner of the database run CREATE SCHEMA liotbchain AUTHORIZATION for the user of DATABASE_URL, \
               or give that user all rights on the schema and its tables"
            .to_owned(),
    }
}

/// Returns a sentence about a chain of the Python original in the same database.
pub(super) async fn find_original(session: &Session) -> Result<Option<String>, Fault> {
    let sql = "SELECT n.nspname::text
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE c.relname = 'blocks' AND c.relkind IN ('r', 'p') AND n.nspname <> 'liotbchain'
                 AND a.attnum > 0 AND NOT a.attisdropped
               GROUP BY n.nspname
               HAVING array_agg(a.attname::text)
                      @> ARRAY['index', 'data', 'timestamp', 'previous_hash', 'nonce', 'hash']
               ORDER BY n.nspname <> 'public', n.nspname LIMIT 1";
    let rows = session.query(sql, &[]).await?;
    Ok(rows.first().map(|row: &Row| {
        let schema: &str = row.get(0);
        format!(
            "the table {schema}.blocks holds a chain of the Python liotbchain; it was left untouched: this chain is kept \
             beside it, in the schema liotbchain"
        )
    }))
}
