//! Chains that cases put into a store: real blocks, mined at difficulty 0, of really signed transactions.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::AtomicBool,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use liotbchain_core::{
    Ancestry, Block, Branch, CheckedBlock, Content, Difficulty, KeyId, PublicKey, Rules, SealRule, Statement,
    TransactionId, VerifiedStatement, check,
    mine::{self, ATTEMPTS_MAX, Draft, Mined},
};
use liotbchain_store::NewTransaction;

/// When the chains of the cases begin.
pub const START_MS: u64 = 1_795_345_827_157;

/// Something that signs.
pub struct Device {
    signer: Signer,
    pub public_key: PublicKey,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Device {
    /// Returns the Ed25519 device of a number.
    pub fn new(number: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        // RFC 8410, section 4: everything before the 32 bytes of the key.
        let spki = [&hex("302a300506032b6570032100")[..], pair.public_key().as_ref()].concat();
        Self { signer: Signer::Ed25519(pair), public_key: PublicKey::from_spki_der(&spki).unwrap() }
    }

    /// Returns a P-256 device: signing the same twice, it gives two signatures.
    pub fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki =
            [&hex("3059301306072a8648ce3d020106082a8648ce3d030107034200")[..], pair.public_key().as_ref()];
        let public_key = PublicKey::from_spki_der(&spki.concat()).unwrap();
        Self { signer: Signer::P256(pair), public_key }
    }

    pub fn key_id(&self) -> KeyId {
        self.public_key.key_id()
    }

    /// Signs a payload.
    pub fn say(&self, payload: impl Into<String>) -> NewTransaction {
        let payload = payload.into();
        let signature = match &self.signer {
            Signer::Ed25519(pair) => pair.sign(payload.as_bytes()).as_ref().to_vec(),
            Signer::P256(pair) => {
                pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap().as_ref().to_vec()
            }
        };
        let statement = Statement { key_id: self.key_id(), payload, signature };
        let statement = VerifiedStatement::verify(statement, &self.public_key).unwrap();
        NewTransaction { statement, public_key: Some(self.public_key.clone()) }
    }

    /// Signs one payload for each number.
    pub fn count(&self, numbers: std::ops::Range<u32>) -> Vec<NewTransaction> {
        numbers.map(|number| self.say(format!("{{\"n\":{number}}}"))).collect()
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|place| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).unwrap())
        .collect()
}

/// Makes a transaction that nobody signs.
pub fn unsigned(payload: &str, salt: u8) -> NewTransaction {
    let statement = VerifiedStatement::unsigned(payload.to_owned(), [salt; 16]).unwrap();
    NewTransaction { statement, public_key: None }
}

/// Returns the ids.
pub fn ids(transactions: &[NewTransaction]) -> Vec<TransactionId> {
    transactions.iter().map(|transaction| transaction.statement.id()).collect()
}

/// A chain that was made for a case. A clone is a fork.
#[derive(Clone)]
pub struct Chain {
    /// From the genesis block on.
    pub blocks: Vec<CheckedBlock>,
    branch: Branch,
    ancestry: Known,
}

/// What [`check`] asks about the branch below.
#[derive(Clone, Default)]
struct Known {
    sequences: HashMap<KeyId, u64>,
    ids: HashSet<TransactionId>,
    keys: HashMap<KeyId, PublicKey>,
}

impl Ancestry for Known {
    fn public_key(&self, key_id: &KeyId) -> Option<PublicKey> {
        self.keys.get(key_id).cloned()
    }

    fn next_sequence(&self, key_id: &KeyId) -> u64 {
        self.sequences.get(key_id).copied().unwrap_or(0)
    }

    fn contains(&self, id: &TransactionId) -> bool {
        self.ids.contains(id)
    }
}

impl Known {
    fn add(&mut self, block: &CheckedBlock) {
        for transaction in block.transactions() {
            *self.sequences.entry(transaction.key_id()).or_default() += 1;
        }
        self.ids.extend(block.ids().iter().flatten());
    }
}

impl Chain {
    /// Returns a genesis block alone. Two of them with one name are the same.
    pub fn new(network: &str) -> Self {
        Self::starting_at(network, START_MS)
    }

    pub fn starting_at(network: &str, timestamp_ms: u64) -> Self {
        let difficulty = Difficulty::new(0).unwrap();
        let rules = Rules {
            network: network.to_owned(),
            seal: SealRule::OnCount,
            difficulty,
            unsigned: true,
            timestamp_ms,
        };
        Self::of(rules.genesis_block().unwrap(), rules)
    }

    fn of(genesis: CheckedBlock, rules: Rules) -> Self {
        let mut ancestry = Known::default();
        ancestry.add(&genesis);
        Self { branch: Branch::new(&genesis, rules), blocks: vec![genesis], ancestry }
    }

    /// Returns the chain of the first blocks alone.
    pub fn cut(&self, length: usize) -> Self {
        let mut cut = Self::of(self.genesis().clone(), self.branch.rules().clone());
        for block in &self.blocks[1..length] {
            cut.branch.extend(block);
            cut.ancestry.add(block);
            cut.blocks.push(block.clone());
        }
        cut
    }

    /// Mines the next block of these transactions.
    pub fn seal(&mut self, transactions: &[NewTransaction]) -> CheckedBlock {
        let ancestry = std::mem::take(&mut self.ancestry);
        let block = self.seal_with(transactions, &ancestry);
        self.ancestry = ancestry;
        self.ancestry.add(&block);
        block
    }

    /// Mines the next block without looking whether the chain holds a transaction already.
    pub fn seal_again(&mut self, transactions: &[NewTransaction]) -> CheckedBlock {
        let ancestry = Known { ids: HashSet::new(), ..self.ancestry.clone() };
        self.seal_with(transactions, &ancestry)
    }

    /// Mines the next block, and drops payload and signature of its transactions.
    pub fn seal_pruned(&mut self, transactions: &[NewTransaction]) -> CheckedBlock {
        let parent = self.clone();
        let mut block = self.seal(transactions).into_block();
        for transaction in &mut block.transactions {
            let statement = transaction.statement().unwrap();
            let (key_id, content_hash) = (statement.key_id, statement.content_hash());
            transaction.content = Content::Pruned { key_id, content_hash };
        }
        check::check_block(block, &parent.branch, &parent.ancestry, None).unwrap()
    }

    /// Checks a block that follows on this chain, with every signature, against these keys.
    pub fn check(&self, block: Block, signers: &[NewTransaction]) -> CheckedBlock {
        let keys = signers.iter().filter_map(|it| it.public_key.clone());
        let ancestry = Known { keys: keys.map(|key| (key.key_id(), key)).collect(), ..self.ancestry.clone() };
        check::check_block(block, &self.branch, &ancestry, None).unwrap()
    }

    fn seal_with(&mut self, transactions: &[NewTransaction], ancestry: &dyn Ancestry) -> CheckedBlock {
        let statements = transactions.iter().map(|transaction| transaction.statement.clone()).collect();
        // A second between blocks, so that the median of timestamps tells one place from another.
        let now_ms = START_MS + 1000 * u64::from(self.branch.next_height());
        let difficulty = self.branch.rules().difficulty;
        let draft =
            Draft::new(&self.branch, statements, |key_id| ancestry.next_sequence(key_id), difficulty, now_ms);
        let mined = mine::mine(draft.header(), ATTEMPTS_MAX, 1, &AtomicBool::new(false)).unwrap();
        let Mined::Found { nonce } = mined else { panic!("difficulty 0 is met soon: {mined:?}") };
        let block = check::check_draft(&draft, nonce, &self.branch, ancestry).unwrap();
        self.branch.extend(&block);
        self.blocks.push(block.clone());
        block
    }

    /// Mines blocks of one transaction each.
    pub fn seal_each(&mut self, transactions: &[NewTransaction]) -> Vec<CheckedBlock> {
        transactions.iter().map(|transaction| self.seal(std::slice::from_ref(transaction))).collect()
    }

    pub fn genesis(&self) -> &CheckedBlock {
        &self.blocks[0]
    }

    pub fn branch(&self) -> Branch {
        self.branch.clone()
    }

    pub fn next_sequence(&self, key_id: &KeyId) -> u64 {
        self.ancestry.next_sequence(key_id)
    }
}
