//! An HTTP server of Python's own `http.server`, which fails as a script says and tells what came.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::lines::Lines;

/// A running server. It is killed when it is dropped.
#[derive(Debug)]
pub struct HttpServer {
    port: u16,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    lines: Lines,
}

/// A request that came whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// with what follows it
    pub path: String,
    /// by name in lower case
    pub headers: BTreeMap<String, String>,
    /// the JSON array
    pub body: Vec<Value>,
    /// what the script did with it: `take` is the only one that was confirmed
    pub did: String,
}

impl Request {
    /// The `Idempotency-Key`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

impl HttpServer {
    /// Starts a server on a free port that follows `script`: see `http_server.py` beside this file.
    pub async fn start(script: &[&str]) -> Self {
        Self::with_environment(script, &[]).await
    }

    /// The same with these environment variables, which say how it speaks TLS.
    pub async fn with_environment(script: &[&str], environment: &[(&str, &str)]) -> Self {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut server = Self { port: 0, child: None, environment, lines: Lines::default() };
        server.restart(script).await;
        server
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it: connections break, and new ones are refused.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Starts it on its port, with another script.
    pub async fn restart(&mut self, script: &[&str]) {
        let before = self.lines.count();
        let (out, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("python3");
        command
            .args(["-c", include_str!("http_server.py"), &self.port.to_string()])
            .args(script)
            .envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(writer).kill_on_drop(true);
        self.child = Some(command.spawn().expect("python3 is needed"));
        drop(command);
        self.lines.follow(out);
        let told: Value = serde_json::from_str(&self.lines.wait_after(before, "\"port\"").await).unwrap();
        self.port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
    }

    /// What has come so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lines.all().iter().filter_map(|line| request(line)).collect()
    }

    /// Waits until `enough` has come, and returns it.
    pub async fn wait_until(&self, enough: impl Fn(&[Request]) -> bool) -> Vec<Request> {
        let requests = |lines: &[String]| lines.iter().filter_map(|line| request(line)).collect::<Vec<_>>();
        requests(&self.lines.wait_until(|lines| enough(&requests(lines))).await)
    }
}

fn request(line: &str) -> Option<Request> {
    let told: Value = serde_json::from_str(line).unwrap();
    let headers = told.get("headers")?.as_object().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some(Request {
        path: text(&told["path"]),
        headers: headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        body: told["body"].as_array().unwrap().clone(),
        did: text(&told["did"]),
    })
}
