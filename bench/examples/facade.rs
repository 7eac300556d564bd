//! What `bench/python/facade.py` does, in Rust: the same additions to the same kind of chain.

use std::time::Instant;

use liotbchain::{Blockchain, Options};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, list, count] = &arguments[..] else {
        anyhow::bail!("usage: facade DATABASE_URL LIST COUNT")
    };
    let (list, count): (usize, usize) = (list.parse()?, count.parse()?);
    let options = Options { unsigned: true, transactions_per_block: 100, ..Options::default() };
    let chain = Blockchain::open(url, options).await?;
    let texts: Vec<_> =
        (0..count).map(|number| format!(r#"{{"device":"tank-1","distance":{number}}}"#)).collect();
    let started = Instant::now();
    for texts in texts.chunks(list) {
        if let [text] = texts {
            chain.add(text).await?;
        } else {
            let transactions =
                texts.iter().map(|text| Blockchain::unsigned(text)).collect::<Result<_, _>>()?;
            chain.add_all(transactions).await?;
        }
    }
    println!("{}", count as f64 / started.elapsed().as_secs_f64());
    chain.close().await;
    Ok(())
}
