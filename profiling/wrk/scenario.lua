-- What wrk sends and how it reports, told by words behind `--`:
--   method=GET  depth=1  type=application/json  body={...}
--   size=1024 (a body of so many bytes)  headers=10 (so many more headers)
-- `depth` requests go out in one write and are then answered one by one (pipelining).
-- The request is made once, before the run: wrk keeps it as it is and calls no Lua while it runs.

function init(args)
   local given = {}
   for _, word in pairs(args) do
      local key, value = word:match("^(%l+)=(.*)$")
      if key then given[key] = value end
   end
   wrk.method = given.method or "GET"
   if given.body then
      wrk.body = given.body
      wrk.headers["Content-Type"] = given.type
   end
   if given.size then wrk.body = string.rep("x", tonumber(given.size)) end
   for number = 1, tonumber(given.headers or "0") do
      wrk.headers["X-Header-" .. number] = "a value of usual length"
   end
   local depth = tonumber(given.depth or "1")
   if depth > 1 then
      local request = wrk.format()
      wrk.format = function() return string.rep(request, depth) end
   end
end

-- One line of JSON, for profiling/load.py: wrk's own text has no P95.
function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '@@{"requests":%d,"duration_us":%d,"p50_us":%.1f,"p95_us":%.1f,"p99_us":%.1f,' ..
      '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
      summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(95), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
