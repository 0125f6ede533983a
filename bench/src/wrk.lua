-- Requests for links picked at random out of a campaign, whose formula for tokens is that of campaign.rs,
-- or for tokens that no link has.
local links, head, unknown, tail

-- The header fields of a click in a webmail, for what is recorded of them costs time.
local fields = " HTTP/1.1\r\nHost: 127.0.0.1:" .. wrk.port .. "\r\n"
  .. "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36\r\n"
  .. "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
  .. "Accept-Language: en-GB,en;q=0.9\r\n"
  .. "Accept-Encoding: gzip, deflate, br\r\n"
  .. "Referer: https://mail.example.com/\r\n"
local format, random = string.format, math.random

function init(args)
  links = tonumber(args[1])
  math.randomseed(tonumber(args[2]))
  head = "GET " .. args[3] .. "%08x%08x"
  unknown = args[4] == "unknown"
  tail = fields .. (args[5] == "closed" and "Connection: close\r\n\r\n" or "\r\n")
end

function request()
  if unknown then
    return format(head, random(0, 4294967295), random(0, 4294967295)) .. tail
  end
  local i = random(0, links - 1)
  return format(head, (i * 40503) % 4294967296, (i * 7919 + 12345) % 4294967296) .. tail
end

function done(summary, latency)
  local errors = summary.errors
  io.write(format("\nresult %d %d %d %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
