{{/* The configuration: which tables it has, and as TOML. What gives a table gives it as JSON. */}}

{{/* What the values say of the brokers, as a table of the configuration, in JSON. */}}
{{- define "streamworker.kafkaTable" -}}
{{- $kafka := .Values.kafka -}}
{{- $client := dict -}}
{{- if or $kafka.tls.enabled $kafka.sasl.mechanism -}}
{{- $secured := ternary "SSL" "PLAINTEXT" $kafka.tls.enabled -}}
{{- $_ := set $client "security.protocol" (ternary (printf "SASL_%s" $secured) $secured (ne $kafka.sasl.mechanism "")) -}}
{{- end -}}
{{- if and $kafka.tls.enabled $kafka.tls.existingSecret -}}
{{- $folder := "/run/secrets/kafka-tls" -}}
{{- with $kafka.tls.caKey }}{{- $_ := set $client "ssl.ca.location" (printf "%s/%s" $folder .) -}}{{- end -}}
{{- with $kafka.tls.certKey }}{{- $_ := set $client "ssl.certificate.location" (printf "%s/%s" $folder .) -}}{{- end -}}
{{- with $kafka.tls.keyKey }}{{- $_ := set $client "ssl.key.location" (printf "%s/%s" $folder .) -}}{{- end -}}
{{- with $kafka.tls.keyPasswordKey }}{{- $_ := set $client "ssl.key.password_file" (printf "%s/%s" $folder .) -}}{{- end -}}
{{- end -}}
{{- with $kafka.sasl.mechanism -}}
{{- $_ := set $client "sasl.mechanisms" . -}}
{{- $name := printf "/run/secrets/kafka-sasl/%s" $kafka.sasl.usernameKey -}}
{{- $password := printf "/run/secrets/kafka-sasl/%s" $kafka.sasl.passwordKey -}}
{{- if eq . "OAUTHBEARER" -}}
{{- $_ := set $client "sasl.oauthbearer.method" "oidc" -}}
{{- $_ := set $client "sasl.oauthbearer.token.endpoint.url" $kafka.sasl.tokenEndpointUrl -}}
{{- with $kafka.sasl.scope }}{{- $_ := set $client "sasl.oauthbearer.scope" . -}}{{- end -}}
{{- $_ := set $client "sasl.oauthbearer.client.id_file" $name -}}
{{- $_ := set $client "sasl.oauthbearer.client.secret_file" $password -}}
{{- else -}}
{{- $_ := set $client "sasl.username_file" $name -}}
{{- $_ := set $client "sasl.password_file" $password -}}
{{- end -}}
{{- end -}}
{{- $table := dict "bootstrap_servers" $kafka.bootstrapServers -}}
{{- if $client }}{{- $_ := set $table "librdkafka" $client -}}{{- end -}}
{{- dict "kafka" $table | toJson -}}
{{- end -}}

{{/* The configuration: (dict "root" $ "group" "orders" "tables" (list …)), the last table on top, as JSON. */}}
{{- define "streamworker.config" -}}
{{- $tables := concat (list (include "streamworker.kafkaTable" .root | fromJson) .root.Values.config) .tables -}}
{{- if .group }}{{- $tables = append $tables (dict "kafka" (dict "group" .group)) -}}{{- end -}}
{{- include "streamworker.merged" $tables -}}
{{- end -}}

{{/* Its configuration, as JSON. */}}
{{- define "streamworker.workerConfig" -}}
{{- $worker := include "streamworker.worker" . | fromJson -}}
{{- $tables := list $worker.config -}}
{{- if eq .track "canary" }}{{- $tables = concat $tables (list (dict "deployment" (dict "track" "canary")) $worker.canary.config) -}}{{- end -}}
{{- include "streamworker.config" (dict "root" .root "group" $worker.group "tables" $tables) -}}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: drain, last commit, leaving the group, and ten to end in. The defaults are the worker's own. */}}
{{- define "streamworker.neededGrace" -}}
{{- $drain := dig "lifecycle" "drain_timeout_s" 25.0 . -}}
{{- $commit := dig "commit" "timeout_s" 2.0 . -}}
{{- $close := dig "lifecycle" "close_timeout_s" 4.0 . -}}
{{- addf $drain $commit $close 10 | ceil | printf "%.0f" -}}
{{- end -}}

{{/* A table of the configuration as TOML: (dict "path" "" "table" …). Values stand before the tables that are below it. */}}
{{- define "streamworker.toml" -}}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "streamworker.tomlKey" $key }} = {{ include "streamworker.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $path := printf "%s%s" $.path (include "streamworker.tomlKey" $key) }}

[{{ $path }}]
{{- include "streamworker.toml" (dict "path" (printf "%s." $path) "table" $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "streamworker.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ include "streamworker.tomlText" . }}{{ end -}}
{{- end -}}

{{/* JSON's text is TOML's, but for DEL. */}}
{{- define "streamworker.tomlText" -}}
{{- toRawJson . | replace "\u007f" "\\u007f" -}}
{{- end -}}

{{/* Helm hands whole numbers over as floats. TOML tells these from integers, and so does the loader. */}}
{{- define "streamworker.tomlValue" -}}
{{- if kindIs "string" . -}}
{{- include "streamworker.tomlText" . -}}
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ toJson . }}{{ end -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{- $items = append $items (include "streamworker.tomlValue" .) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "map" . -}}
{{- $items := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $items = append $items (printf "%s = %s" (include "streamworker.tomlKey" $key) (include "streamworker.tomlValue" $value)) -}}
{{- end -}}
{{- end -}}
{ {{- join ", " $items -}} }
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* The file: what "streamworker.config" gives, as text. */}}
{{- define "streamworker.tomlFile" -}}
{{- include "streamworker.toml" (dict "path" "" "table" .) | trim -}}
{{- end -}}
