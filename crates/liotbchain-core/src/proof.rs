//! Proofs over Merkle trees: that a leaf stands in a tree, and that a tree goes on where an earlier one ended.
//!
//! Shapes and algorithms are those of RFC 9162, sections 2.1.3 and 2.1.4, over the tree of [`crate::merkle`]. A proof is a list
//! of hashes, at most two for each doubling of the tree. What a verifier needs beside it, the roots and the places, it
//! must have from elsewhere: a proof says nothing about who vouches for a root.
//!
//! Proving asks for nodes of perfect subtrees alone, which a store keeps, so a proof costs O(log² size) hashes.

use crate::{
    hash::Root,
    merkle::{Frontier, node_hash},
};

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The place is outside of the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutOfTree {
        /// The leaf's place.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The earlier tree is not the smaller one.
    #[error("a tree of {new} leaves does not go on from one of {old}")]
    Order {
        /// Size of the earlier tree.
        old: u64,
        /// Size of the later one.
        new: u64,
    },
    /// The list has another number of hashes than such a proof.
    #[error("{got} hashes: expected {expected}")]
    Length {
        /// How many it has.
        got: usize,
        /// How many such a proof has.
        expected: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to the root {got}: expected {expected}")]
    OtherRoot {
        /// Where it leads.
        got: Root,
        /// The root that is known.
        expected: Root,
    },
}

/// Returns the path that proves that a leaf stands in a tree of `size` leaves, from the leaf upwards. Asks `node(level,
/// index)` for roots of perfect subtrees, over leaves `index << level` up to `(index + 1) << level`, exclusive.
///
/// # Errors
///
/// [`ProofError::OutOfTree`] in the outer result; what `node` returns in the inner one.
pub fn prove_inclusion<E>(
    index: u64,
    size: u64,
    mut node: impl FnMut(u8, u64) -> Result<[u8; 32], E>,
) -> Result<Result<Vec<[u8; 32]>, E>, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { index, size });
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let split = start + split_of(end - start);
        let other = if index < split { (split, end) } else { (start, split) };
        match subtree_root(other, &mut node) {
            Ok(root) => path.push(root),
            Err(error) => return Ok(Err(error)),
        }
        (start, end) = if index < split { (start, split) } else { (split, end) };
    }
    path.reverse();
    Ok(Ok(path))
}

/// Checks that a leaf with this hash stands at a place of the tree of `size` leaves with this root.
///
/// # Errors
///
/// [`ProofError`], all but [`ProofError::Order`].
pub fn verify_inclusion(
    leaf_hash: [u8; 32],
    index: u64,
    size: u64,
    path: &[[u8; 32]],
    root: Root,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { index, size });
    }
    let sides = sides(index, size);
    if path.len() != sides.len() {
        return Err(ProofError::Length { got: path.len(), expected: sides.len() });
    }
    let got = path.iter().zip(sides).fold(leaf_hash, |hash, (other, side)| match side {
        Side::Left => node_hash(other, &hash),
        Side::Right => node_hash(&hash, other),
    });
    same(Root(got), root)
}

/// Returns the proof that a tree of `new` leaves begins with the tree of its first `old` ones. Asks `node` as
/// [`prove_inclusion`] does.
///
/// # Errors
///
/// [`ProofError::Order`] in the outer result, also for an earlier tree that is empty; what `node` returns in the inner one.
pub fn prove_consistency<E>(
    old: u64,
    new: u64,
    mut node: impl FnMut(u8, u64) -> Result<[u8; 32], E>,
) -> Result<Result<Vec<[u8; 32]>, E>, ProofError> {
    if old == 0 || old > new {
        return Err(ProofError::Order { old, new });
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, new);
    let mut ranges = Vec::new();
    while old < end {
        let split = start + split_of(end - start);
        if old <= split {
            ranges.push((split, end));
            end = split;
        } else {
            ranges.push((start, split));
            start = split;
        }
    }
    // Where the earlier tree is a whole subtree from the first leaf on, its root is known.
    if start > 0 {
        ranges.push((start, end));
    }
    for range in ranges.into_iter().rev() {
        match subtree_root(range, &mut node) {
            Ok(root) => path.push(root),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(path))
}

/// Checks that the tree of `new` leaves with one root begins with the tree of `old` leaves with the other.
///
/// # Errors
///
/// [`ProofError`], all but [`ProofError::OutOfTree`].
pub fn verify_consistency(
    old: u64,
    old_root: Root,
    new: u64,
    new_root: Root,
    path: &[[u8; 32]],
) -> Result<(), ProofError> {
    if old == 0 || old > new {
        return Err(ProofError::Order { old, new });
    }
    if old == new {
        return match path.len() {
            0 => same(old_root, new_root),
            got => Err(ProofError::Length { got, expected: 0 }),
        };
    }
    // The way up from the last leaf of the earlier tree, from its last perfect subtree on. What stands left of it is of both
    // trees, what stands right of it of the later one alone. The way starts at that subtree, which is the whole earlier tree
    // where its size is a power of two; else the proof begins with its root.
    let sides = &sides(old - 1, new)[old.trailing_zeros() as usize..];
    let is_whole = old.is_power_of_two();
    let expected = sides.len() + usize::from(!is_whole);
    if path.len() != expected {
        return Err(ProofError::Length { got: path.len(), expected });
    }
    let (start, rest) = if is_whole { (old_root.0, path) } else { (path[0], &path[1..]) };
    let (mut old_hash, mut new_hash) = (start, start);
    for (other, side) in rest.iter().zip(sides) {
        match side {
            Side::Left => {
                old_hash = node_hash(other, &old_hash);
                new_hash = node_hash(other, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, other),
        }
    }
    same(Root(old_hash), old_root)?;
    same(Root(new_hash), new_root)
}

/// On which side of the way up from a leaf the hash of a path stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Returns the sides of a leaf's path, from the leaf upwards.
fn sides(index: u64, size: u64) -> Vec<Side> {
    let mut sides = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let split = start + split_of(end - start);
        if index < split {
            sides.push(Side::Right);
            end = split;
        } else {
            sides.push(Side::Left);
            start = split;
        }
    }
    sides.reverse();
    sides
}

/// Returns the largest power of two below a size of at least two.
fn split_of(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// Computes the root over leaves `start` up to `end`, exclusive, where `start` is a multiple of the power of two that `end -
/// start` does not exceed.
fn subtree_root<E>(
    (start, end): (u64, u64),
    node: &mut impl FnMut(u8, u64) -> Result<[u8; 32], E>,
) -> Result<[u8; 32], E> {
    let mut nodes = Vec::new();
    let mut done = start;
    for (level, _) in Frontier::places(end - start) {
        nodes.push(node(level, done >> level)?);
        done += 1 << level;
    }
    let mut nodes = nodes.into_iter().rev();
    let last = nodes.next().expect("a range of a tree holds a leaf");
    Ok(nodes.fold(last, |right, left| node_hash(&left, &right)))
}

fn same(got: Root, expected: Root) -> Result<(), ProofError> {
    if got == expected { Ok(()) } else { Err(ProofError::OtherRoot { got, expected }) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::leaf_hash;

    /// A tree with all nodes of its perfect subtrees, as a store keeps them.
    struct Tree {
        nodes: HashMap<(u8, u64), [u8; 32]>,
        roots: Vec<Root>,
        leaves: Vec<[u8; 32]>,
    }

    impl Tree {
        fn of(leaves: impl IntoIterator<Item = Vec<u8>>) -> Self {
            let mut frontier = Frontier::default();
            let mut tree = Self { nodes: HashMap::new(), roots: vec![frontier.root()], leaves: Vec::new() };
            for leaf in leaves {
                let hash = leaf_hash(&leaf);
                tree.leaves.push(hash);
                tree.nodes
                    .extend(frontier.append(hash).into_iter().map(|it| ((it.level, it.index), it.hash)));
                tree.roots.push(frontier.root());
            }
            tree
        }

        fn numbered(size: u64) -> Self {
            Self::of((0..size).map(|number| number.to_be_bytes().to_vec()))
        }

        fn node(&self) -> impl FnMut(u8, u64) -> Result<[u8; 32], Infallible> + '_ {
            |level, index| Ok(self.nodes[&(level, index)])
        }

        fn inclusion(&self, index: u64, size: u64) -> Vec<[u8; 32]> {
            prove_inclusion(index, size, self.node()).unwrap().unwrap()
        }

        fn consistency(&self, old: u64, new: u64) -> Vec<[u8; 32]> {
            prove_consistency(old, new, self.node()).unwrap().unwrap()
        }
    }

    fn hex_path(path: &[[u8; 32]]) -> Vec<String> {
        path.iter().map(hex::encode).collect()
    }

    /// The tree and the proofs that Certificate Transparency's own tests use.
    #[test]
    fn gives_the_published_proofs() {
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
        let tree = Tree::of(leaves.iter().map(|leaf| hex::decode(leaf).unwrap()));
        assert_eq!(
            hex_path(&tree.inclusion(0, 8)),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            hex_path(&tree.inclusion(2, 3)),
            ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]
        );
        assert_eq!(hex_path(&tree.consistency(1, 1)), [] as [&str; 0]);
        assert_eq!(
            hex_path(&tree.consistency(1, 8)),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proved() {
        let tree = Tree::numbered(70);
        for size in 1..=70 {
            for index in 0..size {
                let (leaf, root) = (tree.leaves[index as usize], tree.roots[size as usize]);
                let path = tree.inclusion(index, size);
                assert_eq!(verify_inclusion(leaf, index, size, &path, root), Ok(()), "{index} of {size}");
                assert!(path.len() <= 7);
            }
        }
    }

    #[test]
    fn every_small_tree_goes_on_from_every_smaller_one() {
        let tree = Tree::numbered(70);
        for new in 1..=70 {
            for old in 1..=new {
                let path = tree.consistency(old, new);
                let (old_root, new_root) = (tree.roots[old as usize], tree.roots[new as usize]);
                assert_eq!(verify_consistency(old, old_root, new, new_root, &path), Ok(()), "{old} to {new}");
                assert_eq!(path.is_empty(), old == new, "{old} to {new}");
            }
        }
    }

    #[test]
    fn refuses_places_and_sizes_that_are_none() {
        let tree = Tree::numbered(5);
        let out = ProofError::OutOfTree { index: 5, size: 5 };
        assert_eq!(prove_inclusion(5, 5, tree.node()).unwrap_err(), out);
        assert_eq!(verify_inclusion([0; 32], 5, 5, &[], tree.roots[5]), Err(out));
        for (old, new) in [(0, 5), (6, 5), (0, 0)] {
            assert_eq!(prove_consistency(old, new, tree.node()).unwrap_err(), ProofError::Order { old, new });
            let (root, error) = (tree.roots[0], ProofError::Order { old, new });
            assert_eq!(verify_consistency(old, root, new, root, &[]), Err(error));
        }
        assert!(
            prove_inclusion(u64::MAX - 1, u64::MAX, |_, _| Ok::<_, Infallible>([0; 32])).unwrap().is_ok()
        );
        assert!(
            prove_consistency(u64::MAX - 1, u64::MAX, |_, _| Ok::<_, Infallible>([0; 32])).unwrap().is_ok()
        );
        let long = vec![[0; 32]; 1000];
        assert!(verify_inclusion([0; 32], u64::MAX - 1, u64::MAX, &long, tree.roots[1]).is_err());
        assert!(verify_consistency(1 << 63, tree.roots[1], u64::MAX, tree.roots[2], &long).is_err());
    }

    #[test]
    fn tells_what_a_store_could_not_give() {
        assert_eq!(prove_inclusion(0, 2, |_, _| Err("missing")), Ok(Err("missing")));
        assert_eq!(prove_consistency(1, 2, |_, _| Err("missing")), Ok(Err("missing")));
    }

    proptest! {
        #[test]
        fn a_changed_inclusion_never_verifies(size in 2u64..200, place in 0u64..200, bit in 0usize..256, hash in 0usize..8) {
            let index = place % size;
            let tree = Tree::numbered(size);
            let (leaf, root) = (tree.leaves[index as usize], tree.roots[size as usize]);
            let path = tree.inclusion(index, size);
            let fails = |leaf, index, size, path: &[[u8; 32]], root| {
                prop_assert!(verify_inclusion(leaf, index, size, path, root).is_err());
                Ok(())
            };
            let mut changed = path.clone();
            let hash = hash % path.len();
            changed[hash][bit / 8] ^= 1 << (bit % 8);
            fails(leaf, index, size, &changed, root)?;
            let mut other = leaf;
            other[bit / 8] ^= 1 << (bit % 8);
            fails(other, index, size, &path, root)?;
            fails(leaf, (index + 1) % size, size, &path, root)?;
            fails(leaf, index, size, &path[1..], root)?;
            fails(leaf, index, size, &[&path[..], &[[0; 32]]].concat(), root)?;
            fails(leaf, index, size, &path, tree.roots[size as usize - 1])?;
            // A node poses as a leaf.
            if let Some(node) = path.first().filter(|_| index % 2 == 0 && index + 1 < size) {
                let parent = node_hash(&leaf, node);
                fails(parent, index / 2, size, &path[1..], root)?;
            }
            let mut reversed = path.clone();
            reversed.reverse();
            if reversed != path {
                fails(leaf, index, size, &reversed, root)?;
            }
        }

        #[test]
        fn a_changed_consistency_never_verifies(new in 2u64..200, place in 0u64..200, bit in 0usize..256, hash in 0usize..9) {
            let old = 1 + place % (new - 1);
            let tree = Tree::numbered(new);
            let (old_root, new_root) = (tree.roots[old as usize], tree.roots[new as usize]);
            let path = tree.consistency(old, new);
            let fails = |old, old_root, new, new_root, path: &[[u8; 32]]| {
                prop_assert!(verify_consistency(old, old_root, new, new_root, path).is_err());
                Ok(())
            };
            let mut changed = path.clone();
            changed[hash % path.len()][bit / 8] ^= 1 << (bit % 8);
            fails(old, old_root, new, new_root, &changed)?;
            for (one, other) in [(&old_root, &new_root), (&new_root, &old_root)] {
                let mut flipped = *one;
                flipped.0[bit / 8] ^= 1 << (bit % 8);
                if one == &old_root {
                    fails(old, flipped, new, *other, &path)?;
                } else {
                    fails(old, *other, new, flipped, &path)?;
                }
            }
            fails(old, new_root, new, old_root, &path)?;
            fails(old, old_root, new, new_root, &path[1..])?;
            fails(old, old_root, new, new_root, &[&path[..], &[[0; 32]]].concat())?;
            // Another history that shares all but the first leaf.
            let forked = Tree::of((0..new).map(|number| if number == 0 { vec![7] } else { number.to_be_bytes().to_vec() }));
            fails(old, old_root, new, forked.roots[new as usize], &forked.consistency(old, new))?;
        }
    }
}
