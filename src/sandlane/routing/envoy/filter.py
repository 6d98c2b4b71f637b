"""The Lua filter that finds a request's routing key: once per request, into an internal header. Pure text.

The same rules as `sandlane.routing.key`; a test sends the same requests to both. What it costs is paid by every request, so it
makes few calls, and looks closer only at headers that contain a member's name at all.
"""

from __future__ import annotations

import json
import re

from sandlane.routing.key import MAX_KEY, KeySources
from sandlane.routing.overrides import SHARDS

KEY_HEADER = "x-sandlane-internal-key"
"""`SHARD|SERVICE:PORT|KEY`, set by the filter only and removed before the application sees the request."""
BASELINE_HEADER = "x-sandlane-internal-baseline"
"""The door's baseline as a cluster: set by its listener, and removed, too."""
PROTO_HEADER = "x-sandlane-internal-proto"
"""The client's own `x-forwarded-proto`: Envoy sets one where there is none, which the application shall not see."""
INTERNAL_HEADERS = (KEY_HEADER, BASELINE_HEADER, PROTO_HEADER)
SEPARATOR = "|"
NAME = "envoy.filters.http.lua"

_SOURCE = """
collectgarbage("setpause", 700)
local members = {NAMES}
local whole = {WHOLE}
local parameter = PARAMETER
local find, match, gmatch, sub, byte = string.find, string.match, string.gmatch, string.sub, string.byte
local function unescape(text)
  if not find(text, "%", 1, true) then return text end
  return (string.gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end
local function trim(text) return match(text, "^[ \\t]*(.-)[ \\t]*$") end
local patterns = {}
for i, name in ipairs(members) do
  patterns[i] = "(),[ \\t]*" .. string.gsub(name, "%W", "%%%0") .. "[ \\t]*=[ \\t]*([^,; \\t][^,;]*)"
end
local function plain(list, from, to)
  if from > 1 then
    local before = byte(list, from - 1)
    if before == 32 and from > 2 then before = byte(list, from - 2) end
    if before ~= 44 then return end
  end
  if byte(list, to + 1) ~= 61 then return end
  local value, stop = match(list, "^([a-z0-9%-]+)()", to + 2)
  if not value then return end
  local after = byte(list, stop)
  if not after or after == 44 or after == 59 then return value end
end
local function member(list)
  if not list then return end
  local text, first, found
  for i = 1, #members do
    local from, to = find(list, members[i], 1, true)
    if from then
      local at, value = from, plain(list, from, to)
      if not value then
        text = text or "," .. list
        at, value = match(text, patterns[i])
      end
      if at and (not first or at < first) then first, found = at, value end
    end
  end
  if found then
    local last = byte(found, -1)
    return (last == 32 or last == 9) and trim(found) or found
  end
end
"""
_FIND = """
local function key_of(headers)
  local key = member(headers:get("baggage"))
  if key then return unescape(key) end
  key = member(headers:get("tracestate"))
  if key then return key end
  for i = 1, #whole do
    for index = 0, headers:getNumValues(whole[i]) - 1 do
      local value = trim(headers:getAtIndex(whole[i], index))
      if value ~= "" then return value end
    end
  end
  if parameter then
    local query = match(headers:get(":path") or "", "%?([^#]*)")
    for pair in gmatch(query or "", "[^&]+") do
      local name, value = match(pair, "^([^=]*)=(.+)$")
      if name == parameter then return unescape((string.gsub(value, "+", " "))) end
    end
  end
end
"""
_STRIP = """
local named = {}
for _, name in ipairs(members) do named[name] = true end
local function mentions(list)
  for i = 1, #members do if find(list, members[i], 1, true) then return true end end
end
local function name_and_value(item)
  local pair = match(item, "^[^;]*")
  local at = find(pair, "=", 1, true)
  if at then return trim(sub(pair, 1, at - 1)), trim(sub(pair, at + 1)) end
end
local function strip(headers, header)
  local list = headers:get(header)
  if not list or not mentions(list) then return end
  local kept = {}
  for item in gmatch(list, "[^,]+") do
    local name = name_and_value(item)
    if not name or not named[name] then kept[#kept + 1] = item end
  end
  headers:remove(header)
  if #kept > 0 then headers:add(header, table.concat(kept, ",")) end
end
local function key_of(headers)
  strip(headers, "baggage")
  strip(headers, "tracestate")
  for i = 1, #whole do headers:remove(whole[i]) end
  local path = parameter and headers:get(":path")
  local before, query = match(path or "", "^([^?#]*)%?([^#]*)")
  if query then
    local kept, all = {}, 0
    for pair in gmatch(query, "[^&]+") do
      all = all + 1
      if match(pair, "^([^=]*)") ~= parameter then kept[#kept + 1] = pair end
    end
    if #kept < all then
      headers:replace(":path", #kept > 0 and before .. "?" .. table.concat(kept, "&") or before)
    end
  end
end
"""
_REQUEST = """
local prefix = {}
for shard = 0, SHARDS - 1 do prefix[shard] = shard .. "|DOOR|" end
function envoy_on_request(handle)
  local headers = handle:headers()
  local key = key_of(headers)
  if key and #key <= MAX_KEY and not find(key, "[^a-z0-9%-]") then
    local shard = 0
    for i = 1, #key do shard = (shard * 31 + byte(key, i)) % SHARDS end
    headers:replace("KEY_HEADER", prefix[shard] .. key)
  else
    headers:replace("KEY_HEADER", prefix[0])
  end
end
"""


def lua(sources: KeySources, door: str, *, strip: bool = False) -> str:
    """The filter's code for these sources at one door. `strip`: take keys off instead of heeding them."""
    values = {
        "NAMES": ", ".join(map(json.dumps, sources.members)),
        "WHOLE": ", ".join(json.dumps(name.lower()) for name in sources.headers),
        "PARAMETER": json.dumps(sources.query_parameter) if sources.query_parameter else "nil",
        "MAX_KEY": str(MAX_KEY),
        "SHARDS": str(SHARDS),
        "KEY_HEADER": KEY_HEADER,
        "DOOR": door,
    }
    text = _SOURCE + (_STRIP if strip else _FIND) + _REQUEST
    return re.sub(rf"\b({'|'.join(values)})\b", lambda found: values[found.group()], text)
