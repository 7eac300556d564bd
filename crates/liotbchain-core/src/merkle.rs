//! The Merkle tree hash of RFC 6962, section 2.1, and the frontier that appends to it in logarithmic space.
//!
//! ```text
//!            root
//!          /      \
//!        n01       l2         three leaves: the largest power of two below the size goes left
//!       /   \
//!      l0    l1
//! ```
//!
//! A leaf is hashed as `H(0x00 ‖ leaf)`, a node as `H(0x01 ‖ left ‖ right)`, so that neither can pose as the other.

use crate::hash::{Root, sha256};

/// Returns `H(0x00 ‖ leaf)`.
pub fn leaf_hash(leaf: &[u8]) -> [u8; 32] {
    sha256(&[&[0], leaf])
}

/// Returns `H(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    // In one piece, so that the hasher need not put three together.
    let mut node = [1; 65];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    sha256(&[&node])
}

/// Computes MTH over leaf hashes in their order; `H("")` over none.
pub fn compute_root(leaf_hashes: impl IntoIterator<Item = [u8; 32]>) -> Root {
    // A frontier that keeps no list of what it completed: this is run over every block that is checked.
    let mut waiting: Vec<[u8; 32]> = Vec::new();
    for (size, leaf_hash) in (0u64..).zip(leaf_hashes) {
        let mut hash = leaf_hash;
        for _ in 0..size.trailing_ones() {
            let left = waiting.pop().expect("a subtree waits for every one bit of the size");
            hash = node_hash(&left, &hash);
        }
        waiting.push(hash);
    }
    root_of(&waiting)
}

/// Computes the path from a leaf to the root over all leaf hashes, from the leaf's neighbour upwards (RFC 9162, section
/// 2.1.3.1). Empty where there is no such leaf.
pub fn compute_path(leaf_hashes: &[[u8; 32]], index: usize) -> Vec<[u8; 32]> {
    let mut path = Vec::new();
    let (mut leaves, mut index) = (leaf_hashes, index);
    while leaves.len() > 1 && index < leaves.len() {
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        let other = if index < left.len() { right } else { left };
        path.push(compute_root(other.iter().copied()).0);
        (leaves, index) = if index < left.len() { (left, index) } else { (right, index - left.len()) };
    }
    path.reverse();
    path
}

/// Returns the root over perfect subtrees, the largest first.
fn root_of(nodes: &[[u8; 32]]) -> Root {
    let mut nodes = nodes.iter().rev();
    let Some(last) = nodes.next() else {
        return Root(sha256(&[]));
    };
    Root(nodes.fold(*last, |right, left| node_hash(left, &right)))
}

/// The roots of the perfect subtrees that a tree of some size is made of, the largest first: all that appending needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<[u8; 32]>,
}

/// A perfect subtree that an append completed: over leaves `index << level` to `(index + 1) << level`, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Height above the leaves; 0 is a leaf hash.
    pub level: u8,
    /// Place among the nodes of its level.
    pub index: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Frontier {
    /// Returns the frontier of a tree of `size` leaves, with each node asked from `node(level, index)`.
    ///
    /// # Errors
    ///
    /// Whatever `node` returns.
    pub fn load<E>(size: u64, mut node: impl FnMut(u8, u64) -> Result<[u8; 32], E>) -> Result<Self, E> {
        let nodes = Self::places(size).map(|(level, index)| node(level, index)).collect::<Result<_, E>>()?;
        Ok(Self { size, nodes })
    }

    /// Returns level and index of each node in the frontier of a tree of `size` leaves, the largest first.
    pub fn places(size: u64) -> impl Iterator<Item = (u8, u64)> {
        (0..64u8)
            .rev()
            .filter(move |level| size >> level & 1 == 1)
            .map(move |level| (level, (size >> level) - 1))
    }

    /// Returns the number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash, and returns the perfect subtrees that it completed, the leaf itself first.
    pub fn append(&mut self, leaf_hash: [u8; 32]) -> Vec<Node> {
        let mut node = Node { level: 0, index: self.size, hash: leaf_hash };
        let mut completed = vec![node];
        // Each trailing one bit of the size is a perfect subtree that waits for its right sibling.
        while self.size >> node.level & 1 == 1 {
            let left = self.nodes.pop().expect("a subtree waits for every one bit of the size");
            node = Node { level: node.level + 1, index: node.index >> 1, hash: node_hash(&left, &node.hash) };
            completed.push(node);
        }
        self.nodes.push(node.hash);
        self.size += 1;
        completed
    }

    /// Returns the root over all leaves.
    pub fn root(&self) -> Root {
        root_of(&self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6962 section 2.1, word for word.
    fn mth(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves.len() {
            0 => sha256(&[]),
            1 => leaf_hash(&leaves[0]),
            n => {
                let k = n.next_power_of_two() / 2;
                node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
            }
        }
    }

    /// The roots over the first 0 to 8 of the eight test leaves that Certificate Transparency's own tests use.
    #[test]
    fn gives_the_published_roots() {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, root) in roots.iter().enumerate() {
            let hashes = leaves[..size].iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap()));
            assert_eq!(compute_root(hashes).to_string(), *root, "{size} leaves");
        }
    }

    proptest! {
        #[test]
        fn frontier_agrees_with_the_definition(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..70)) {
            let mut frontier = Frontier::default();
            leaves.iter().for_each(|leaf| drop(frontier.append(leaf_hash(leaf))));
            prop_assert_eq!(frontier.root().0, mth(&leaves));
            prop_assert_eq!(compute_root(leaves.iter().map(|leaf| leaf_hash(leaf))).0, mth(&leaves));
        }

        #[test]
        fn frontier_is_found_again_from_completed_nodes(size in 0u64..300) {
            let mut nodes = std::collections::HashMap::new();
            let mut frontier = Frontier::default();
            for leaf in 0..size {
                for node in frontier.append(leaf_hash(&leaf.to_be_bytes())) {
                    nodes.insert((node.level, node.index), node.hash);
                }
            }
            let loaded = Frontier::load(size, |level, index| nodes.get(&(level, index)).copied().ok_or((level, index)));
            prop_assert_eq!(loaded, Ok(frontier));
        }
    }
}
