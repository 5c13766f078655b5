//! Hooks of the real agent: posts to a real web server, over HTTP and HTTPS, and a command.

use std::{fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    agent::{Agent, LIMIT},
    net::run,
    privilege,
    process::{Process, eventually},
    stage::Stage,
};

/// Writes each post to /ok as a line of JSON; fails others, and answers /hang never.
const SERVER: &str = r#"
import http.server, json, ssl, sys, threading
port, heard, *pair = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        if self.path == "/hang":
            threading.Event().wait()
        if self.path == "/ok":
            entry = {"type": self.headers["content-type"], "body": json.loads(body)}
            with open(heard, "a") as file:
                file.write(json.dumps(entry) + "\n")
        self.send_response({"/ok": 200, "/moved": 302}.get(self.path, 500))
        self.send_header("location", "/ok")
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
if pair:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"#;

/// A web server on the edge's loopback.
fn serve(stage: &Stage, port: u16, more: &[&str]) -> Result<Process> {
    let mut command = stage.edge.command("/usr/bin/python3");
    command.args(["-c", SERVER, &port.to_string()]).arg(stage.file("posts")).args(more);
    let said = stage.file(&format!("server-{port}"));
    command.stdin(Stdio::null()).stdout(fs::File::create(&said)?);
    let process = Process::spawn("web server", &mut command)?;
    eventually("the web server is ready", LIMIT, || {
        Ok(fs::read_to_string(&said)?.contains("ready"))
    })?;
    Ok(process)
}

fn posts(stage: &Stage) -> Result<Vec<Value>> {
    let text = fs::read_to_string(stage.file("posts")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What the status tells of a hook.
fn hook(agent: &Agent<'_>, name: &str) -> Result<(u64, u64, String)> {
    let status = agent.json(&["status"])?;
    let hooks = status.get("hooks").and_then(Value::as_array).context("no hooks")?;
    let found = hooks.iter().find(|hook| hook.get("name") == Some(&name.into()));
    let found = found.with_context(|| format!("no hook {name}"))?;
    let number = |key: &str| found.get(key).and_then(Value::as_u64).unwrap_or_default();
    let error = found.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((number("sent"), number("failed"), error))
}

#[test]
fn many_bans_are_one_post_and_a_deaf_server_holds_nobody_up() -> Result<()> {
    if !privilege::ready("hooks") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let _server = serve(&stage, 8080, &[])?;
    let said = stage.file("said");
    let hooks = format!(
        "[hooks.chat]\nurl = \"http://127.0.0.1:8080/ok\"\nevery = \"1s\"\n\
         [hooks.api]\nurl = \"http://127.0.0.1:8080/ok\"\nformat = \"json\"\ntell = [\"unbans\"]\n\
         [hooks.broken]\nurl = \"http://127.0.0.1:8080/fail\"\nevery = \"1s\"\n\
         [hooks.moved]\nurl = \"http://127.0.0.1:8080/moved\"\n\
         [hooks.gone]\nurl = \"http://127.0.0.1:9/ok\"\n\
         [hooks.deaf]\nurl = \"http://127.0.0.1:8080/hang\"\ntimeout = \"1s\"\n\
         [hooks.program]\ncommand = [\"/usr/bin/tee\", \"-a\", {said:?}]\n"
    );
    let mut agent = Agent::start(&stage, &hooks)?;
    let list: String = (0..2000).map(|n| format!("10.0.{}.{}\n", n / 250, n % 250)).collect();
    let list = stage.write("list", &list)?;
    let mut ban = stage.edge.command(tests::agent::binary()?);
    ban.arg("--socket").arg(stage.file("control.sock")).args(["ban", "-", "--for", "1h"]);
    run(ban.stdin(fs::File::open(list)?))?;
    eventually("the chat hears of all of them", LIMIT, || Ok(hook(&agent, "chat")?.0 == 1))?;
    let heard = posts(&stage)?;
    let [post] = heard.as_slice() else { anyhow::bail!("not one post: {heard:?}") };
    ensure!(post.get("type") == Some(&"application/json".into()), "{post}");
    let text = post.pointer("/body/text").and_then(Value::as_str).context("no text")?;
    ensure!(text.contains(": 500 banned, 1500 more\n"), "{text}");
    ensure!(text.contains("[manual] banned 10.0.0.0 until "), "{text}");
    ensure!(text.ends_with("\nand 1985 more"), "{text}");
    for (name, reason) in
        [("broken", "500"), ("moved", "302"), ("gone", "refused"), ("deaf", "took longer than 1s")]
    {
        eventually(&format!("hook {name} fails"), LIMIT, || Ok(hook(&agent, name)?.1 == 1))?;
        let (_, _, error) = hook(&agent, name)?;
        ensure!(error.to_lowercase().contains(reason), "{name}: {error}");
    }
    let status = agent.json(&["status"])?;
    let lost = status.pointer("/events/lost/hook").and_then(Value::as_u64);
    // and a few alarms, that hooks fail, which those hooks did not hear of either
    let all = lost.is_some_and(|lost| (8000..8020).contains(&lost));
    ensure!(all, "{lost:?}, and not 2000 each of four hooks");
    ensure!(status.to_string().contains("hook broken does not deliver"), "{status}");

    ensure!(agent.verb(&["unban", "10.0.0.0"])?.status.success(), "unban failed");
    eventually("the API hears of the end", LIMIT, || Ok(hook(&agent, "api")?.0 == 1))?;
    let told = posts(&stage)?;
    let api = told.iter().find_map(|post| post.pointer("/body/events/0")).context("no events")?;
    ensure!(api.pointer("/event/action") == Some(&"unban".into()), "{api}");
    ensure!(api.pointer("/source/ip") == Some(&"10.0.0.0".into()), "{api}");
    // an end does not wait for the next turn, nor for those that hang
    agent.terminate()?;
    let text = fs::read_to_string(&said)?;
    let messages: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // beside them stand the alarms of the hooks that fail
    let is_ban = |event: &&Value| {
        event.pointer("/event/action").is_some_and(|action| action == "ban" || action == "unban")
    };
    let counts: Vec<usize> = messages
        .iter()
        .filter_map(|message| message.get("events").and_then(Value::as_array))
        .map(|events| events.iter().filter(is_ban).count())
        .filter(|count| *count > 0)
        .collect();
    ensure!(counts == [500, 1], "{counts:?}");
    Ok(())
}

#[test]
fn a_server_has_to_prove_who_it_is() -> Result<()> {
    if !privilege::ready("hooks over TLS") {
        return Ok(());
    }
    let stage = Stage::build()?;
    let (key, certificate) = (stage.file("key.pem"), stage.file("certificate.pem"));
    let mut openssl = stage.edge.command("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]);
    // what signs itself must not call itself an authority, for this one is checked as a server
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&key);
    run(openssl.arg("-out").arg(&certificate))?;
    let pair = [&certificate, &key].map(|path| path.to_string_lossy().into_owned());
    let _server = serve(&stage, 8443, &[&pair[0], &pair[1]])?;
    let hooks = "[hooks.chat]\nurl = \"https://127.0.0.1:8443/ok\"\nevery = \"1s\"\n";
    let mut agent = Agent::start(&stage, hooks)?;
    ensure!(agent.verb(&["ban", "203.0.113.9", "--for", "1h"])?.status.success(), "ban failed");
    eventually("a server that nobody vouches for", LIMIT, || Ok(hook(&agent, "chat")?.1 == 1))?;
    let (_, _, error) = hook(&agent, "chat")?;
    ensure!(error.to_lowercase().contains("certificate"), "{error}");
    ensure!(posts(&stage)?.is_empty(), "it was told all the same");

    agent.terminate()?;
    agent.run_trusting(&certificate)?;
    ensure!(agent.verb(&["unban", "203.0.113.9"])?.status.success(), "unban failed");
    eventually("the server is told", LIMIT, || {
        let (sent, _, error) = hook(&agent, "chat")?;
        ensure!(error.is_empty(), "{error}");
        Ok(sent == 1)
    })?;
    let heard = posts(&stage)?;
    ensure!(heard.len() == 1 && heard[0].to_string().contains("1 unbanned"), "{heard:?}");
    Ok(())
}
