"""The Lua filter that finds a request's routing key: once per request, into an internal header. Pure text.

The same rules as `sandlane.routing.key`; a test sends the same requests to both.
"""

from __future__ import annotations

import json

from sandlane.routing.key import KeySources

KEY_HEADER = "x-sandlane-internal-key"
"""Set by the filter only: a client's own is removed, and so is it before the application sees the request."""

_SOURCE = """
local names = {NAMES}
local whole = {WHOLE}
local parameter = PARAMETER
local function unescape(text)
  if not string.find(text, "%", 1, true) then return text end
  return (string.gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end
local function trim(text) return string.match(text, "^[ \\t]*(.-)[ \\t]*$") end
local function member(headers, header, decode)
  local count = headers:getNumValues(header)
  for index = 0, count - 1 do
    for item in string.gmatch(headers:getAtIndex(header, index), "[^,]+") do
      local pair = string.match(item, "^[^;]*")
      local at = string.find(pair, "=", 1, true)
      if at and names[trim(string.sub(pair, 1, at - 1))] then
        local value = trim(string.sub(pair, at + 1))
        if value ~= "" then return decode and unescape(value) or value end
      end
    end
  end
end
local function find(headers)
  local key = member(headers, "baggage", true) or member(headers, "tracestate", false)
  if key then return key end
  for _, name in ipairs(whole) do
    for index = 0, headers:getNumValues(name) - 1 do
      local value = trim(headers:getAtIndex(name, index))
      if value ~= "" then return value end
    end
  end
  if parameter then
    local query = string.match(headers:get(":path") or "", "%?([^#]*)")
    for pair in string.gmatch(query or "", "[^&]+") do
      local name, value = string.match(pair, "^([^=]*)=(.+)$")
      if name == parameter then return unescape((string.gsub(value, "+", " "))) end
    end
  end
end
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("HEADER") then headers:remove("HEADER") end
  local key = find(headers)
  if key and not string.find(key, "[%c]") then headers:add("HEADER", key) end
end
"""


def lua(sources: KeySources) -> str:
    """The filter's code for these sources."""
    names = ", ".join(f"[{json.dumps(name)}] = true" for name in sources.members)
    headers = ", ".join(json.dumps(name.lower()) for name in sources.headers)
    parameter = json.dumps(sources.query_parameter) if sources.query_parameter else "nil"
    return (
        _SOURCE.replace("NAMES", names)
        .replace("WHOLE", headers)
        .replace("PARAMETER", parameter)
        .replace("HEADER", KEY_HEADER)
    )
