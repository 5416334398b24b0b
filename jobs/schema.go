package jobs

import (
	"encoding/json"
	"maps"
	"slices"
)

// schemaDialect is the version of JSON Schema that the schemas are written in.
const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// SchemaNames are the names that Schema knows, sorted.
func SchemaNames() []string {
	return []string{
		"breaker-event", "duplicate-event", "job", "policy", "pool-event", "problem", "result", "retry-event", "site-event",
	}
}

// Schema is the JSON Schema of a message, made of its table of fields. It is nil for a name that is none of SchemaNames. A job
// and a policy with unknown members are refused; what gofer writes may have more members than the schema names. The result is
// described by its headers, as an object of lists of texts.
func Schema(name string) []byte {
	body := schemaBody(name)
	if body == nil {
		return nil
	}
	schema := with(body, rule{"$schema": schemaDialect, "$id": "urn:gofer:schema:" + name, "title": "gofer " + name})
	data, err := json.MarshalIndent(schema, "", " ")
	if err != nil {
		panic(err) // the rules are constants
	}
	return append(data, '\n')
}

func schemaBody(name string) rule {
	switch name {
	case "job":
		return jobRule()
	case "policy":
		return objectRule(PolicyFields())
	case "problem":
		return writtenRule(ProblemFields())
	case "result":
		return resultRule()
	case "retry-event":
		return writtenRule(RetryEventFields())
	case "breaker-event":
		return writtenRule(BreakerEventFields())
	case "pool-event":
		return writtenRule(PoolEventFields())
	case "site-event":
		return writtenRule(SiteEventFields())
	case "duplicate-event":
		return writtenRule(DuplicateEventFields())
	}
	return nil
}

// objectRule is an object that has no members but these. A member with the default "required" has to be there.
func objectRule(fields []Field) rule {
	properties, required := rule{}, []string{}
	for _, f := range fields {
		properties[f.Name] = with(f.Schema, rule{"description": describe(f)})
		if f.Default == "required" {
			required = append(required, f.Name)
		}
	}
	object := rule{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		object["required"] = required
	}
	return object
}

// describe is what a schema says to people: what the keywords cannot say stands in the bounds.
func describe(f Field) string {
	if f.Bounds == "" {
		return f.Meaning
	}
	return f.Meaning + " (" + f.Bounds + ")"
}

// writtenRule is an object that gofer writes: it has all members without a default, and later versions may add some.
func writtenRule(fields []Field) rule {
	object := objectRule(fields)
	delete(object, "additionalProperties")
	object["required"] = alwaysThere(fields)
	return object
}

func alwaysThere(fields []Field) (names []string) {
	for _, f := range fields {
		if f.Default == "" {
			names = append(names, f.Name)
		}
	}
	return names
}

// jobRule forbids body beside body_base64, which no rule of a single field can say.
func jobRule() rule {
	bodies := rule{"required": []string{"body", "body_base64"}, "properties": rule{"body": true, "body_base64": true}}
	return with(objectRule(JobFields()), rule{"not": bodies})
}

// overrideRule is a job's retry: an absent member is the fleet's, so it has no default here.
func overrideRule() rule {
	fields := slices.DeleteFunc(PolicyFields(), func(f Field) bool { return f.Name == "ban_status_codes" })
	for i, f := range fields {
		fields[i].Schema = maps.Clone(f.Schema)
		delete(fields[i].Schema, "default")
		if f.Name == "timeout" {
			fields[i].Schema = durationRule(rule{"exclusiveMinimum": 0})
		}
	}
	return objectRule(fields)
}

// proxyRule adds what holds between members: region_strict needs a region, and direct stands alone.
func proxyRule() rule {
	given := func(name string) rule {
		return rule{"properties": rule{name: rule{"const": true}}, "required": []string{name}}
	}
	empty := rule{"const": ""}
	return with(objectRule(ProxyFields()), rule{"allOf": []any{
		rule{"if": given("region_strict"), "then": rule{"required": []string{"region"}, "properties": rule{"region": rule{"type": "string", "minLength": 1}}}},
		rule{"if": given("direct"), "then": rule{"properties": rule{"tags": rule{"type": "array", "maxItems": 0}, "region": empty, "session": empty, "id": empty}}},
	}})
}

// resultRule describes the headers of a result as NATS libraries show them: a list of texts for each name.
func resultRule() rule {
	properties := rule{}
	for _, f := range ResultFields() {
		properties[f.Name] = with(listRule(f.Schema), rule{"minItems": 1, "maxItems": 1, "description": f.Meaning})
	}
	succeeded := rule{"properties": rule{HeaderOutcome: rule{"type": "array", "contains": rule{"const": Succeeded}}}}
	return rule{
		"type": "object", "properties": properties, "required": alwaysThere(ResultFields()),
		"additionalProperties": rule{"type": "array", "items": textRule()},
		"description":          "The headers of a result. The payload is the body of the answer, or a problem if the job did not succeed.",
		"if":                   succeeded, "then": rule{"properties": rule{HeaderError: false}}, "else": rule{"required": []string{HeaderError}},
	}
}
