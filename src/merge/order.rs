//! In which order changes can be made when some have to wait for others, and which must be made together.

use std::collections::BTreeMap;

/// Strongly connected components of `nodes` under `needs` (an edge says "must not be after me"), needs first: Tarjan, SIAM J. Comput.
/// 1(2), 1972, without recursion. A component of several nodes can only be made as one. Edges to nodes outside the list do not count.
pub fn components<T: Ord + Copy>(nodes: &[T], mut needs: impl FnMut(T) -> Vec<T>) -> Vec<Vec<T>> {
    struct Mark {
        index: usize,
        low: usize,
        on_stack: bool,
    }
    struct Frame<T> {
        node: T,
        edges: std::vec::IntoIter<T>,
    }
    let wanted: std::collections::BTreeSet<T> = nodes.iter().copied().collect();
    let mut marks: BTreeMap<T, Mark> = BTreeMap::new();
    let mut stack: Vec<T> = Vec::new();
    let mut out = Vec::new();
    for &start in nodes {
        if marks.contains_key(&start) {
            continue;
        }
        let mut frames: Vec<Frame<T>> = Vec::new();
        let mut enter = Some(start);
        loop {
            if let Some(node) = enter.take() {
                let index = marks.len();
                marks.insert(node, Mark { index, low: index, on_stack: true });
                stack.push(node);
                frames.push(Frame { node, edges: needs(node).into_iter() });
            }
            let Some(frame) = frames.last_mut() else { break };
            let node = frame.node;
            if let Some(next) = frame.edges.next() {
                if !wanted.contains(&next) {
                    continue;
                }
                match marks.get(&next) {
                    None => enter = Some(next),
                    Some(mark) if mark.on_stack => {
                        let index = mark.index;
                        let mine = marks.get_mut(&node).expect("entered nodes are marked");
                        mine.low = mine.low.min(index);
                    }
                    Some(_) => {}
                }
                continue;
            }
            frames.pop();
            let (index, low) = marks.get(&node).map(|mark| (mark.index, mark.low)).expect("entered nodes are marked");
            if let Some(parent) = frames.last() {
                let above = marks.get_mut(&parent.node).expect("entered nodes are marked");
                above.low = above.low.min(low);
            }
            if index == low {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    marks.get_mut(&member).expect("entered nodes are marked").on_stack = false;
                    component.push(member);
                    if member == node {
                        break;
                    }
                }
                component.reverse();
                out.push(component);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(edges: &[(u8, u8)], nodes: &[u8]) -> Vec<Vec<u8>> {
        components(nodes, |n| edges.iter().filter(|(from, _)| *from == n).map(|(_, to)| *to).collect())
    }

    /// What others need comes first, whatever the order of the list.
    #[test]
    fn needs_come_first() {
        assert_eq!(run(&[(1, 2), (2, 3)], &[1, 2, 3]), [[3], [2], [1]]);
        assert_eq!(run(&[(1, 2), (2, 3)], &[3, 1, 2]), [[3], [2], [1]]);
        assert_eq!(run(&[(1, 9)], &[1]), [[1]]);
    }

    /// Changes that wait for each other come as one.
    #[test]
    fn a_ring_is_one_component() {
        assert_eq!(run(&[(1, 2), (2, 1), (2, 3), (4, 1)], &[4, 1, 2, 3]), vec![vec![3], vec![1, 2], vec![4]]);
    }

    /// A chain of 100,000 does not exhaust the stack.
    #[test]
    fn depth_is_not_recursion() {
        let nodes: Vec<u32> = (0..100_000).collect();
        let out = components(&nodes, |n| if n + 1 < 100_000 { vec![n + 1] } else { vec![] });
        assert_eq!(out.len(), 100_000);
        assert_eq!(out[0], [99_999]);
    }
}
