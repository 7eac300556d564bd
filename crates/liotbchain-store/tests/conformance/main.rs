//! What every store must do: one list of cases, run on memory, SQLite and PostgreSQL.
//!
//! PostgreSQL is the server that `TEST_POSTGRES_URL` names (its user must be allowed to create databases), or else a
//! private cluster that the test makes and removes.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

#[path = "../support/chain.rs"]
mod chain;
#[allow(dead_code, reason = "shared with the tests of PostgreSQL alone, which use all of it")]
#[path = "../support/postgres_cluster.rs"]
mod postgres_cluster;

mod admission;
mod contents;
mod place;
mod pruning;
mod reading;
mod reorganisation;
mod seal_right;
mod sealing;

use std::{future::Future, pin::Pin};

use place::{Backend, Place, Server};

type Case = fn(Place) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names each case as its function is named.
macro_rules! cases {
    ($($module:ident::$case:ident,)*) => {
        [$((stringify!($case), |place| Box::pin($module::$case(place)))),*]
    };
}

const CASES: &[(&str, Case)] = &cases![
    admission::admits_what_is_new_and_knows_what_is_not,
    admission::counts_an_id_once_that_stands_twice_in_a_list,
    admission::keeps_the_signature_that_came_first,
    admission::keeps_the_order_of_arrival,
    admission::keeps_any_text,
    admission::keeps_unsigned_transactions_apart,
    admission::refuses_a_transaction_of_an_unknown_key,
    admission::keeps_public_keys,
    admission::gives_an_id_one_row_however_many_admit_it,
    sealing::is_empty_at_first,
    sealing::is_created_once,
    sealing::is_created_by_one_of_two,
    sealing::gives_the_branch_after_every_block,
    sealing::takes_many_blocks_in_one_commit,
    sealing::overtakes_nothing_that_waits_unknown_to_the_caller,
    sealing::gives_pending_transactions_their_place,
    sealing::keeps_the_signature_that_the_block_holds,
    sealing::changes_nothing_where_the_tip_moved,
    sealing::changes_nothing_where_the_blocks_do_not_fit,
    sealing::keeps_every_timestamp_or_refuses_it,
    seal_right::is_held_by_one,
    seal_right::is_fenced_by_its_epoch,
    seal_right::expires,
    seal_right::is_prolonged,
    seal_right::is_released,
    reorganisation::moves_to_another_branch_and_back,
    reorganisation::makes_transactions_pending_at_their_old_place,
    reorganisation::keeps_the_history_tree,
    reorganisation::changes_nothing_where_it_fails,
    reorganisation::leaves_the_genesis_block,
    pruning::drops_what_a_key_said_and_nothing_else,
    pruning::drops_unsigned_transactions_but_not_the_genesis,
    pruning::drops_step_by_step,
    pruning::keeps_a_pruned_transaction_that_comes_in_a_block,
    pruning::takes_pruned_blocks_off_and_puts_them_back,
    pruning::drops_it_from_blocks_beside_the_chain_too,
    pruning::gives_the_space_back,
    reading::finds_a_transaction_by_its_id,
    reading::pages_through_keys,
    reading::pages_through_ids,
    reading::pages_through_blocks,
    reading::reads_one_snapshot,
    reading::is_the_same_when_opened_again,
];

async fn run_cases(backend: Backend) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        println!("{}: {name}", backend.name());
        let place = backend.make_place(name).await;
        // A task of its own keeps a panic from ending the others.
        if tokio::spawn(case(place)).await.is_err() {
            failed.push(name);
        }
        backend.remove_place(name).await;
    }
    assert!(failed.is_empty(), "{} does not do as it must: {failed:?}", backend.name());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    run_cases(Backend::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    run_cases(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres() {
    run_cases(Backend::Postgres(Box::new(Server::find()))).await;
}
