-- Clicks on links picked at random out of a campaign; campaign.rs has the same formula for tokens.
local links

function init(args)
  links = tonumber(args[1])
  math.randomseed(tonumber(args[2]))
end

-- The header fields of a click in a webmail, for what is recorded of them costs time.
local tail = " HTTP/1.1\r\nHost: 127.0.0.1:" .. wrk.port .. "\r\n"
  .. "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36\r\n"
  .. "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
  .. "Accept-Language: en-GB,en;q=0.9\r\n"
  .. "Accept-Encoding: gzip, deflate, br\r\n"
  .. "Referer: https://mail.example.com/\r\n\r\n"
local format, random = string.format, math.random

function request()
  local i = random(0, links - 1)
  return format("GET /c/%08x%08x", (i * 40503) % 4294967296, (i * 7919 + 12345) % 4294967296) .. tail
end

function done(summary, latency)
  local errors = summary.errors
  io.write(format("\nresult %d %d %d %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
