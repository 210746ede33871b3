//! Whoever follows one call finds its way through the cluster, and nobody waits for whoever follows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jangbu_proto::convert;
use jangbu_tests::{Cluster, Payer, Payments, Settings, open_accounts, payment, until};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    resource::v1::Resource,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_handed_on_is_one_trace_on_both_nodes_and_no_collector_holds_up_another() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut cluster = Cluster::unborn(Settings::default());
    for id in [1, 2] {
        // Only what a caller asks for.
        let settings = format!("[tracing]\nendpoint = \"http://{address}\"\ncalls_per_million = 0\n");
        cluster.node(id).adjust(&settings);
    }
    // Node 3 traces everything, and nobody takes it.
    cluster.node(3).adjust("[tracing]\nendpoint = \"http://127.0.0.1:1\"\ncalls_per_million = 1000000\n");
    cluster.start_all();
    cluster.initialize().await;
    cluster.serves().await;
    open_accounts(&cluster, 1).await;
    cluster.move_leader(1).await;

    let mut asked = Request::new(convert::transfers_to_wire(&[payment(5)]));
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    asked.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    cluster.door(2).ledger().create_transfers(asked).await.expect("it is paid");
    let untraced = cluster.door(2).create_transfers(&[payment(5)], Duration::from_secs(5)).await;
    untraced.expect("it is paid");

    // By name and node.
    let spans = until("both nodes have told of it", async || {
        let spans = collector.spans();
        (spans.len() >= 5).then_some(spans)
    })
    .await;
    let told: Vec<_> = spans.keys().map(|(node, name)| (node.as_str(), name.as_str())).collect();
    let both = [("1", "gather"), ("1", "propose"), ("2", "create_transfers"), ("2", "forward"), ("2", "gather")];
    assert_eq!(told, both);
    let span = |node: &str, name: &str| &spans[&(node.to_owned(), name.to_owned())];
    assert!(spans.values().all(|span| hex(&span.trace_id) == TRACE), "what nobody asked for isn't traced");
    let call = span("2", "create_transfers");
    assert_eq!(hex(&call.parent_span_id), CALLER);
    for name in ["gather", "forward"] {
        assert_eq!(span("2", name).parent_span_id, call.span_id, "{name}");
    }
    for name in ["gather", "propose"] {
        assert_eq!(span("1", name).parent_span_id, span("2", "forward").span_id, "{name}");
    }
    let of_log = |span: &Span| span.attributes.iter().any(|attribute| attribute.key == "jangbu.log_index");
    assert!(of_log(span("1", "propose")) && of_log(span("2", "forward")), "{spans:?}");

    // One collector is gone, the other was never there.
    let patient = Payments { deadline: Duration::from_secs(20), ..Payments::default() };
    serving.abort();
    let payer = Payer::start_at(&cluster, &[3], patient).await;
    payer.progresses(2_000, "though nobody takes their spans").await;
    assert_eq!(payer.stop().await.troubles(), Vec::<String>::new());
}

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    /// By node and name.
    fn spans(&self) -> BTreeMap<(String, String), Span> {
        let spans = self.0.lock().expect("nothing here panics while it holds the lock");
        spans.iter().map(|(node, span)| ((node.clone(), span.name.clone()), span.clone())).collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("nothing here panics while it holds the lock");
        for of_node in request.into_inner().resource_spans {
            let node = node_of(&of_node.resource.unwrap_or_default());
            let spans = of_node.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| (node.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn node_of(resource: &Resource) -> String {
    let instance = resource.attributes.iter().find(|attribute| attribute.key == "service.instance.id");
    match instance.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(node)) => node,
        other => panic!("who sends spans says who it is, not {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
