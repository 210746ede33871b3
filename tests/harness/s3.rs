//! An S3-compatible service on loopback: one bucket, in memory, and the misfortunes that a test orders.
//!
//! As much of the protocol as backups use: objects put, got, looked at, deleted and listed. It knows one access key; that a
//! signature is right it takes on trust: `cluster/backup.rs` has a whole server for that.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

const BUCKET: &str = "money";
const ACCESS_KEY: &str = "shop";

/// What becomes of one put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfortune {
    /// The connection breaks when half of it has arrived.
    CutOff,
    /// 503, as busy services say.
    Busy,
    /// Half of it is stored, and all is said to be.
    Halved,
}

#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    misfortunes: VecDeque<Misfortune>,
    /// With so many objects there, a request with this method is never answered and does nothing.
    silent_at: Option<(&'static str, usize)>,
    unanswered: usize,
}

impl Shelf {
    /// Whether the next thing that was ordered is this; then it isn't ordered any more.
    fn befalls(&mut self, misfortune: Misfortune) -> bool {
        let befalls = self.misfortunes.front() == Some(&misfortune);
        if befalls {
            self.misfortunes.pop_front();
        }
        befalls
    }
}

/// The service. It ends with the runtime that it was started on.
pub struct Storage {
    address: String,
    shelf: Arc<Mutex<Shelf>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    key_is_known: bool,
    /// `None`: the connection was cut off.
    body: Option<Vec<u8>>,
}

impl Storage {
    pub async fn start() -> Storage {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let shared = shelf.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Storage { address, shelf }
    }

    /// The environment of a command that uses it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", "whatever".into()),
        ]
    }

    /// Befalls the next puts, one each.
    pub fn order(&self, misfortunes: impl IntoIterator<Item = Misfortune>) {
        self.shelf.lock().expect("nothing panics under it").misfortunes.extend(misfortunes);
    }

    /// Ordered, and yet to befall a put.
    pub fn misfortunes_left(&self) -> usize {
        self.shelf.lock().expect("nothing panics under it").misfortunes.len()
    }

    /// Requests with this method go unanswered while so many objects are there; `None`: all are answered again.
    pub fn silent_at(&self, requests: Option<(&'static str, usize)>) {
        self.shelf.lock().expect("nothing panics under it").silent_at = requests;
    }

    pub fn unanswered_count(&self) -> usize {
        self.shelf.lock().expect("nothing panics under it").unanswered
    }

    pub fn objects_count(&self) -> usize {
        self.shelf.lock().expect("nothing panics under it").objects.len()
    }
}

async fn serve(stream: TcpStream, shelf: Arc<Mutex<Shelf>>) {
    let mut stream = BufReader::new(stream);
    // An error is a client that hung up.
    while let Ok(Some(request)) = read(&mut stream, &shelf).await {
        if is_left_waiting(&request, &shelf) {
            return pending().await;
        }
        let Some((status, body)) = answer(&request, &shelf) else { return };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"1\"\r\nlast-modified: Mon, 23 Nov 2026 08:00:00 GMT\r\n\r\n"
        );
        let body = if request.method == "HEAD" { &[][..] } else { &body };
        if stream.get_mut().write_all(&[head.as_bytes(), body].concat()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, shelf: &Mutex<Shelf>) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let mut words = head.first().map(String::as_str).unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        head.iter().find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)))
    };
    let mut length: usize = header("content-length").and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let is_cut_off = method == "PUT" && shelf.lock().expect("nothing panics under it").befalls(Misfortune::CutOff);
    if is_cut_off {
        length /= 2;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let known = format!("Credential={ACCESS_KEY}/");
    Ok(Some(Request {
        method,
        path: path.trim_start_matches('/').to_owned(),
        query: query.to_owned(),
        key_is_known: header("authorization").is_some_and(|(_, value)| value.contains(&known)),
        body: (!is_cut_off).then_some(body),
    }))
}

fn is_left_waiting(request: &Request, shelf: &Mutex<Shelf>) -> bool {
    let mut shelf = shelf.lock().expect("nothing panics under it");
    let is_left = shelf.silent_at.is_some_and(|(method, from)| request.method == method && shelf.objects.len() >= from);
    shelf.unanswered += usize::from(is_left);
    is_left
}

/// Status and body; `None`: the connection breaks.
fn answer(request: &Request, shelf: &Mutex<Shelf>) -> Option<(&'static str, Vec<u8>)> {
    let body = request.body.as_ref()?;
    let error = |code: &str| format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>").into_bytes();
    if !request.key_is_known {
        return Some(("403 Forbidden", error("InvalidAccessKeyId")));
    }
    let (bucket, key) = request.path.split_once('/').unwrap_or((&request.path, ""));
    if bucket != BUCKET {
        return Some(("404 Not Found", error("NoSuchBucket")));
    }
    let mut shelf = shelf.lock().expect("nothing panics under it");
    Some(match request.method.as_str() {
        "PUT" => match shelf.misfortunes.pop_front() {
            Some(Misfortune::Busy) => ("503 Service Unavailable", error("SlowDown")),
            misfortune => {
                let kept = if misfortune == Some(Misfortune::Halved) { body.len() / 2 } else { body.len() };
                shelf.objects.insert(key.to_owned(), body[..kept].to_vec());
                ("200 OK", Vec::new())
            }
        },
        "GET" if key.is_empty() => ("200 OK", listing(&shelf.objects, &request.query).into_bytes()),
        "GET" | "HEAD" => match shelf.objects.get(key) {
            Some(object) => ("200 OK", object.clone()),
            None => ("404 Not Found", error("NoSuchKey")),
        },
        "DELETE" => {
            shelf.objects.remove(key);
            ("204 No Content", Vec::new())
        }
        _ => ("405 Method Not Allowed", error("MethodNotAllowed")),
    })
}

fn listing(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default().replace("%2F", "/");
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"1\"</ETag><LastModified>2026-11-23T08:00:00.000Z</LastModified></Contents>",
                object.len()
            )
        })
        .collect();
    format!(
        "<ListBucketResult><Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    )
}
