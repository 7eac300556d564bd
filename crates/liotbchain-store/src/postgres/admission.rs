//! Makes transactions pending, with their keys, in one statement.
//!
//! Several receivers may admit the same ones at once. Rows arrive in the order of the list, and are inserted in that of
//! their ids: two such statements then wait for each other in one direction only.

use std::collections::{BTreeMap, HashMap, HashSet};

use liotbchain_core::{KeyId, PublicKey, Statement, TimestampMs, TransactionId};

use super::{
    PostgresStore,
    fault::{Failure, Fault},
    row,
    session::deadline,
};
use crate::{Admitted, NewTransaction, Status, StoreError};

/// A key that another receiver commits while this statement runs is seen by neither side of `coalesce`. The row then has
/// no key, the statement fails, and is tried again.
const ADMIT: &str = "
    WITH added AS (
        INSERT INTO liotbchain.keys (key_id, spki)
        SELECT n.key_id, n.spki FROM unnest($1::bytea[], $2::bytea[]) AS n (key_id, spki)
        WHERE n.spki IS NOT NULL AND NOT EXISTS (SELECT FROM liotbchain.keys k WHERE k.key_id = n.key_id)
        ORDER BY n.key_id
        ON CONFLICT (key_id) DO NOTHING
        RETURNING key, key_id
    ), signers AS (
        SELECT array_agg(coalesce(k.key, a.key) ORDER BY n.place) AS keys
        FROM unnest($1::bytea[]) WITH ORDINALITY AS n (key_id, place)
        LEFT JOIN liotbchain.keys k ON k.key_id = n.key_id
        LEFT JOIN added a ON a.key_id = n.key_id
    ), given AS MATERIALIZED (
        SELECT nextval('liotbchain.transactions_arrival_seq') AS arrival, g.*
        FROM unnest($3::bytea[], $4::integer[], $5::bytea[], $6::bytea[]) AS g (id, signer, payload, signature)
    )
    INSERT INTO liotbchain.transactions (arrival, id, key, received_ms, payload, signature)
    SELECT g.arrival, g.id, (SELECT keys FROM signers)[g.signer], $7, g.payload, g.signature
    FROM given g
    ORDER BY g.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

pub(super) async fn admit(
    store: &PostgresStore,
    transactions: &[NewTransaction],
    now_ms: TimestampMs,
) -> Result<Admitted, StoreError> {
    let mut seen = HashSet::with_capacity(transactions.len());
    let firsts: Vec<_> = transactions.iter().filter(|new| seen.insert(new.statement.id())).collect();
    if firsts.is_empty() {
        return Ok(Admitted { statuses: Vec::new(), new: 0 });
    }
    let signers = signers(&firsts);
    let signer_ids: Vec<&[u8]> = signers.keys().map(|key_id| &key_id.0[..]).collect();
    let spkis: Vec<Option<&[u8]>> = signers.values().map(|key| key.map(PublicKey::spki_der)).collect();
    // The first element of an SQL array has the number 1.
    let numbers: HashMap<KeyId, i32> = signers.keys().copied().zip(1..).collect();

    let list: Vec<TransactionId> = firsts.iter().map(|new| new.statement.id()).collect();
    let statements: Vec<&Statement> = firsts.iter().map(|new| new.statement.statement().as_ref()).collect();
    let ids: Vec<&[u8]> = list.iter().map(|id| &id.0[..]).collect();
    let keys: Vec<i32> = statements.iter().map(|statement| numbers[&statement.key_id]).collect();
    let payloads: Vec<&[u8]> = statements.iter().map(|statement| statement.payload.as_bytes()).collect();
    let signatures: Vec<&[u8]> = statements.iter().map(|statement| &statement.signature[..]).collect();
    let now_ms = now_ms.cast_signed();

    let until = deadline(store.timeout);
    let written = store
        .write_until(until, ADMIT, &[&signer_ids, &spkis, &ids, &keys, &payloads, &signatures, &now_ms])
        .await
        .map_err(|failure| match failure {
            Failure::Fault(fault) => unknown_key(fault),
            refused => refused,
        })?;
    let added: HashSet<TransactionId> = written.iter().map(row::id).collect::<Result<_, _>>()?;
    let old: Vec<&[u8]> = list.iter().filter(|id| !added.contains(id)).map(|id| &id.0[..]).collect();
    let known = match old.is_empty() {
        true => HashMap::new(),
        false => store.statuses(until, &old, true).await.map_err(after_commit)?,
    };
    let status = |new: &NewTransaction| match new.statement.id() {
        id if added.contains(&id) => Ok(Status::Pending),
        id => known.get(&id).copied().ok_or_else(|| StoreError::Corrupt(format!("transaction {id} is gone"))),
    };
    let statuses = transactions.iter().map(status).collect::<Result<_, _>>()?;
    Ok(Admitted { statuses, new: added.len() as u64 })
}

/// Returns each key that signed, with its public key where that was given.
fn signers<'a>(transactions: &[&'a NewTransaction]) -> BTreeMap<KeyId, Option<&'a PublicKey>> {
    let mut signers: BTreeMap<KeyId, Option<&PublicKey>> = BTreeMap::new();
    for new in transactions {
        let key_id = new.statement.statement().key_id;
        let signer = signers.entry(key_id).or_default();
        *signer = signer.or(new.public_key.as_ref().filter(|key| key.key_id() == key_id));
    }
    signers
}

/// A caller has to make keys known before it uses them.
pub(super) fn unknown_key(fault: Fault) -> Failure {
    if !fault.is_key_missing() {
        return fault.into();
    }
    Failure::Refused(StoreError::Config {
        problem: "the public key of a transaction is not known to the store".to_owned(),
        cure: "make it known before a transaction that it signed".to_owned(),
    })
}

/// Says that a look-up failed after its operation was committed: it must not be taken for "nothing was changed".
fn after_commit(failure: Failure) -> StoreError {
    match StoreError::from(failure) {
        StoreError::Unavailable(reason) => StoreError::CommitUnknown(reason),
        other => other,
    }
}
