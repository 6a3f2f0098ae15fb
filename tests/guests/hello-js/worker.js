// The same worker as hello/, as far as the tests of more than one language need it.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  if (url.pathname === "/echo" && request.method === "POST") {
    return new Response(request.body, { headers: { "content-type": "application/octet-stream" } });
  }
  if (url.pathname === "/trap") {
    throw new Error("asked to");
  }
  return new Response(`Hello from a Wharfage worker in JavaScript! You asked for ${url.pathname}${url.search}\n`, {
    headers: { "content-type": "text/plain" },
  });
}
