//! No text makes the reader of proof files panic, and what it reads is written as the same again. None of it proves anything
//! about a chain that the text does not name.

#![no_main]

use liotbchain_core::{
    Note, Policy,
    receipt::{ProofFile, Receipt},
};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(file) = ProofFile::parse(text) {
        assert_eq!(ProofFile::parse(&file.to_json()).as_ref(), Ok(&file));
        match &file {
            ProofFile::Receipt(receipt) => drop(receipt.verify()),
            ProofFile::Block(proof) => drop(proof.verify()),
            ProofFile::KeyHistory(history) => drop(history.verify()),
            ProofFile::Consistency(consistency) => drop(consistency.verify()),
        }
    }
    if let Ok(receipt) = Receipt::parse_tlog_proof(text) {
        let again = receipt.to_tlog_proof().expect("it ends in a checkpoint");
        assert_eq!(Receipt::parse_tlog_proof(&again).as_ref(), Ok(&receipt));
        drop(receipt.verify());
    }
    if let Ok(note) = text.parse::<Note>() {
        assert_eq!(note.to_string(), text);
    }
    drop(Policy::parse(text));
});
