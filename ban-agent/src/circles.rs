//! Keeps the rooms apart: no file imports, over any way, a file of another folder that imports it
//! back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A file's path, as a module has it.
type Module = Vec<String>;

/// Folders that may name each other, while no two of their files do so in a circle: the pipeline
/// sends the engine its commands, and the engine starts the pipeline.
const NEIGHBOURS: &[[&str; 2]] = &[["engine", "pipeline"]];

/// All files under `folder`, but for tests.
fn files(folder: &Path, module: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut module = module.to_vec();
        module.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        if path.is_dir() {
            files(&path, &module, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            let code = code.collect::<Vec<_>>().join("\n");
            let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            if module.last().is_some_and(|name| name == "mod") {
                module.pop();
            }
            found.insert(module, code.to_owned());
        }
    }
}

/// The paths of a `use` tree, each after `before`.
fn paths(before: &str, tree: &str, found: &mut Vec<String>) {
    let (mut depth, mut begin) = (0, 0);
    for (at, sign) in tree.char_indices().chain([(tree.len(), ',')]) {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let one = &tree[begin..at];
                match one.split_once('{') {
                    Some((path, rest)) => {
                        let rest = rest.strip_suffix('}').unwrap_or(rest);
                        paths(&format!("{before}{path}"), rest, found);
                    }
                    None if !one.is_empty() => found.push(format!("{before}{one}")),
                    None => {}
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// Returns the files that the code of `module` names.
fn imports(module: &Module, code: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut found = Vec::new();
    let mut rest = String::new();
    for (number, part) in code.split("use ").enumerate() {
        let is_use =
            number > 0 && ["crate::", "self::", "super::"].iter().any(|way| part.starts_with(way));
        match part.split_once(';').filter(|_| is_use) {
            Some((tree, after)) => {
                paths("", &tree.split_whitespace().collect::<String>(), &mut found);
                rest.push_str(after);
            }
            None => rest.push_str(part),
        }
    }
    let inline = rest.split("crate::").skip(1);
    let name = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    found.extend(inline.map(|path| format!("crate::{}", path.split(name).next().unwrap())));
    let mut modules = BTreeSet::new();
    for path in found {
        let mut path: Vec<String> = path.split("::").map(str::to_owned).collect();
        let mut whole = match path.remove(0).as_str() {
            // lib.rs gives some parts a name of their own
            "crate" if ["action", "event", "hook"].contains(&path[0].as_str()) => {
                vec!["report".to_owned()]
            }
            "crate" if path[0] == "fail2ban" => vec!["config".to_owned()],
            "crate" => Module::new(),
            "self" => module.clone(),
            "super" => module[..module.len() - 1].to_vec(),
            _ => continue,
        };
        while path.first().is_some_and(|word| word == "super") {
            path.remove(0);
            whole.pop();
        }
        whole.extend(path);
        while !whole.is_empty() && !all.contains_key(&whole) {
            whole.pop();
        }
        if !whole.is_empty() && whole != *module {
            modules.insert(whole);
        }
    }
    modules
}

/// Returns everything that is reached from `start`, over any way.
fn reached(start: &Module, imports: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![start.clone()]);
    while let Some(module) = next.pop() {
        for imported in imports.get(&module).into_iter().flatten() {
            if seen.insert(imported.clone()) {
                next.push(imported.clone());
            }
        }
    }
    seen
}

#[test]
fn no_file_imports_one_of_another_folder_that_imports_it_back() {
    let mut all = BTreeMap::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut all);
    all.retain(|module, _| {
        !["lib", "main", "circles"].contains(&module[0].as_str())
            && module.last().is_some_and(|name| name != "tests")
    });
    let graph: BTreeMap<Module, BTreeSet<Module>> =
        all.iter().map(|(module, code)| (module.clone(), imports(module, code, &all))).collect();
    assert!(graph.values().flatten().count() > 500, "the imports are not found any more");
    let (mut circles, mut folders) = (Vec::new(), BTreeMap::new());
    for (module, direct) in &graph {
        for imported in direct.iter().filter(|imported| imported[0] != module[0]) {
            folders.insert([module[0].clone(), imported[0].clone()], (module, imported));
            if reached(imported, &graph).contains(module) {
                circles.push(format!("{} <-> {}", module.join("/"), imported.join("/")));
            }
        }
    }
    for ([one, other], (module, imported)) in &folders {
        let allowed = NEIGHBOURS
            .iter()
            .any(|pair| pair.contains(&one.as_str()) && pair.contains(&other.as_str()));
        if !allowed && folders.contains_key(&[other.clone(), one.clone()]) {
            circles.push(format!(
                "{one} <-> {other}: {} imports {}",
                module.join("/"),
                imported.join("/")
            ));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}
