//! A device signs readings, a chain keeps them, and a stranger gets a file to check.
//!
//! `cargo run --example readings`

use std::error::Error;

use liotbchain::{Blockchain, Options, SigningKey, signer::KeyKind};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join("liotbchain-readings");
    std::fs::create_dir_all(&folder)?;
    let options = Options { data_dir: folder.clone(), transactions_per_block: 3, ..Options::default() };
    let chain = Blockchain::open("sqlite:readings.db", options).await?;

    let device = SigningKey::generate(KeyKind::Ed25519)?;
    for celsius in [21.5, 21.7, 22.0] {
        let reading = format!(r#"{{"device":"greenhouse","celsius":{celsius}}}"#);
        let acknowledgement = chain.add_signed(&reading, &device).await?;
        println!("{reading} is kept as {}: {:?}", acknowledgement.id, acknowledgement.status);
    }

    let validation = chain.validate().await?;
    println!("{} blocks, fault: {:?}", validation.valid_blocks, validation.fault);

    let file = folder.join("chain.ndjson");
    chain.export(&mut std::fs::File::create(&file)?, |_| {}).await?;
    println!("anybody can check {}", file.display());
    chain.close().await;
    Ok(())
}
