-- Put before the scripts that write rows: whether a change is news. Both take what the script has read.

-- The deletion markers that stand beside rows which do not: of these changes, whose number is in `missing` and
-- whose second field is the marker's index in KEYS. By number; a marker of another type counts as none.
local function markers_of(changes, missing)
  local keys, markers = {}, {}
  for i = 1, #missing do
    keys[i] = KEYS[changes[missing[i]][2]]
  end
  local found = #keys > 0 and redis.call('MGET', unpack(keys))
  for i = 1, #missing do
    markers[missing[i]] = found[i]
  end
  return markers
end

-- `stored`: the version that stands; `gone`: the one at which the row was deleted. All are text, as read. A
-- deletion at the version that stands is meant for it.
local function is_newer(version, stored, gone, deletes)
  version = tonumber(version)
  if stored then
    local known = tonumber(stored)
    return known < version or (deletes and known == version)
  end
  return not gone or tonumber(gone) < version
end

