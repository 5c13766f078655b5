//! The paths that a filter asks for, as a tree of keys: a reader goes down it while it reads.

use super::Form;

/// Where the tree begins.
pub(super) const ROOT: usize = 0;

/// All paths of a filter, numbered in the order in which they were added.
#[derive(Debug)]
pub(super) struct Paths {
    form: Form,
    nodes: Vec<Node>,
    known: Vec<Box<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    children: Vec<(Box<str>, usize)>,
    /// The path that ends here.
    pub(super) path: Option<usize>,
}

impl Node {
    /// Returns whether a path goes on from here.
    pub(super) fn inner(&self) -> bool {
        !self.children.is_empty()
    }
}

impl Paths {
    pub(super) fn new(form: Form) -> Paths {
        Paths { form, nodes: vec![Node::default()], known: Vec::new() }
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns how many places the tree has.
    pub(super) fn places(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the number of `path`, which is added if it is new.
    pub(super) fn add(&mut self, path: &str) -> usize {
        if let Some(number) = self.known.iter().position(|known| **known == *path) {
            return number;
        }
        let number = self.known.len();
        self.known.push(path.into());
        let keys: Vec<String> = match (self.form, path.strip_prefix('/')) {
            (Form::Logfmt, _) => vec![path.to_owned()],
            (Form::Json, None) => path.split('.').map(Into::into).collect(),
            (Form::Json, Some(pointer)) => {
                let keys = pointer.split('/');
                keys.map(|key| key.replace("~1", "/").replace("~0", "~")).collect()
            }
        };
        let mut at = ROOT;
        for key in keys {
            at = match self.child(at, &key) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.children.push((key.into(), child));
                    }
                    child
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(at) {
            // a pointer and a path with dots may mean the same
            match node.path {
                Some(number) => {
                    self.known.pop();
                    return number;
                }
                None => node.path = Some(number),
            }
        }
        number
    }

    pub(super) fn node(&self, at: usize) -> Option<&Node> {
        self.nodes.get(at)
    }

    /// Returns where `key` leads from `at`.
    pub(super) fn child(&self, at: usize, key: &str) -> Option<usize> {
        let children = &self.nodes.get(at)?.children;
        children.iter().find(|(known, _)| **known == *key).map(|(_, child)| *child)
    }
}
