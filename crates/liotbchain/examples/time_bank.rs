//! Not a device in sight: neighbours give each other hours, and nobody can change who gave what.
//!
//! `cargo run --example time_bank`

use std::{collections::BTreeMap, error::Error};

use liotbchain::{Blockchain, Options};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Gift {
    from: String,
    to: String,
    hours: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options { network: "time bank".to_owned(), unsigned: true, ..Options::default() };
    let chain = Blockchain::open("memory:", options).await?;

    for (from, to, hours) in [("Ada", "Ben", 2), ("Ben", "Cleo", 1), ("Cleo", "Ada", 3)] {
        let gift = Gift { from: from.to_owned(), to: to.to_owned(), hours };
        chain.add(&serde_json::to_string(&gift)?).await?;
    }
    let height = chain.mine().await?;
    println!("{height} blocks");

    let mut balances: BTreeMap<String, i64> = BTreeMap::new();
    for block in chain.blocks(1, height).await? {
        for statement in block.transactions.iter().filter_map(|transaction| transaction.statement()) {
            let gift: Gift = serde_json::from_str(&statement.payload)?;
            *balances.entry(gift.from).or_default() += gift.hours;
            *balances.entry(gift.to).or_default() -= gift.hours;
        }
    }
    println!("{balances:#?}");
    chain.close().await;
    Ok(())
}
