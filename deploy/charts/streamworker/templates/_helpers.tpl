{{/*
What the templates share: names, labels, the configuration as TOML, and the pod. What takes more than the root gets a
dict; what gives a table gives it as JSON.
*/}}

{{- define "streamworker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "streamworker.fullname" -}}
{{- $name := include "streamworker.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "streamworker.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "streamworker.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Tables laid over one another, the last one on top, as JSON. Unlike mergeOverwrite, 0, false and "" count, and null takes away. */}}
{{- define "streamworker.merged" -}}
{{- $merged := dict -}}
{{- range $table := . -}}
{{- range $key, $value := $table -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $merged $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $merged $key)) -}}
{{- $_ := set $merged $key (include "streamworker.merged" (list (get $merged $key) $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end -}}

{{/* What holds for a worker: (dict "root" $ "name" "orders"), as JSON. */}}
{{- define "streamworker.worker" -}}
{{- include "streamworker.merged" (list .root.Values.workerDefaults (get .root.Values.workers .name | default dict)) -}}
{{- end -}}

{{/* What holds for a pod that is no worker: (dict "root" $ "pod" .Values.console.pod), as JSON. */}}
{{- define "streamworker.podSettings" -}}
{{- $shared := omit .root.Values.workerDefaults "resources" "topologySpreadConstraints" "initContainers" "sidecars" "podLabels" "podAnnotations" -}}
{{- include "streamworker.merged" (list $shared .pod) -}}
{{- end -}}

{{- define "streamworker.workerName" -}}
{{- printf "%s-%s" (include "streamworker.fullname" .root) .name -}}
{{- end -}}

{{/* By what a pod is selected: (dict "root" $ "component" "worker" "worker" "orders" "track" "stable"), as JSON. It never changes. */}}
{{- define "streamworker.selector" -}}
{{- $labels := dict "app.kubernetes.io/name" (include "streamworker.name" .root) "app.kubernetes.io/instance" .root.Release.Name -}}
{{- if .component }}{{- $_ := set $labels "app.kubernetes.io/component" .component -}}{{- end -}}
{{- if .worker }}{{- $_ := set $labels "streamworker.dev/worker" .worker -}}{{- end -}}
{{- if .track }}{{- $_ := set $labels "track" .track -}}{{- end -}}
{{- toJson $labels -}}
{{- end -}}

{{/* Labels of an object; what it selects by goes before what users add. */}}
{{- define "streamworker.labels" -}}
{{- $chart := dict
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
    "app.kubernetes.io/version" (.root.Chart.AppVersion | trunc 63)
    "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- merge (include "streamworker.selector" . | fromJson) $chart (.labels | default dict) .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* The head of an object: (dict "root" $ "name" "…" "component" … "annotations" … "labels" …). */}}
{{- define "streamworker.metadata" -}}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "streamworker.labels" . | nindent 4 }}
  {{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The image: (list .Values.image worker.image canary.image), what is said last goes first. A tag takes an earlier digest away. */}}
{{- define "streamworker.image" -}}
{{- $image := dict "repository" "" "tag" "" "digest" "" -}}
{{- range .images -}}
{{- if .repository }}{{- $_ := set $image "repository" .repository -}}{{- end -}}
{{- if .tag }}{{- $_ := set $image "tag" .tag -}}{{- $_ := set $image "digest" "" -}}{{- end -}}
{{- if .digest }}{{- $_ := set $image "digest" .digest -}}{{- end -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

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

{{/* Helm hands whole numbers over as floats, which TOML would tell from integers, and so does the loader. */}}
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

{{/* Seconds from SIGTERM to SIGKILL: drain, last commit, leaving the group, and ten to end in. The defaults are the worker's own. */}}
{{- define "streamworker.neededGrace" -}}
{{- $drain := dig "lifecycle" "drain_timeout_s" 25.0 . -}}
{{- $commit := dig "commit" "timeout_s" 2.0 . -}}
{{- $close := dig "lifecycle" "close_timeout_s" 4.0 . -}}
{{- addf $drain $commit $close 10 | ceil | printf "%.0f" -}}
{{- end -}}

{{/* The port for probes and metrics, as a number; the default is the worker's own. */}}
{{- define "streamworker.httpPort" -}}
{{- dig "http" "port" 8080.0 .Values.config | printf "%.0f" -}}
{{- end -}}

{{/* Where dead letters of a topic come back: (dict "topic" "orders" "group" "billing"). As the worker names it. */}}
{{- define "streamworker.replayTopic" -}}
{{- $name := regexReplaceAll "[^A-Za-z0-9._-]" (printf "%s.replay.%s" .topic .group) "_" -}}
{{- if gt (len $name) 249 -}}
{{- $end := printf ".%s.replay" (printf "%s\n%s" .topic .group | sha256sum | trunc 12) -}}
{{- $name = printf "%s%s" (trunc (sub 249 (len $end) | int) $name) $end -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* How many pods find a partition beside those of the canary. */}}
{{- define "streamworker.mostReplicas" -}}
{{- $canary := ternary (int .canary.replicas) 0 .canary.enabled -}}
{{- sub (div (int .partitions) (int .processes)) $canary -}}
{{- end -}}

{{- define "streamworker.maxReplicas" -}}
{{- .autoscaling.maxReplicas | int | default (include "streamworker.mostReplicas" . | int) -}}
{{- end -}}

{{- define "streamworker.scaleTargetRef" -}}
{{- merge (deepCopy .worker.autoscaling.scaleTargetRef) (dict "apiVersion" "apps/v1" "kind" .worker.kind "name" .name) | toYaml -}}
{{- end -}}

{{- define "streamworker.scaleBehavior" -}}
{{- $behavior := deepCopy .behavior -}}
{{- if not (kindIs "invalid" .tolerance) -}}
{{- range $direction := list "scaleUp" "scaleDown" -}}
{{- $_ := set $behavior $direction (set (get $behavior $direction | default dict) "tolerance" (toString $.tolerance)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $behavior -}}
{{- end -}}

{{- define "streamworker.lagObserved" -}}
{{- $asked := list .Values.rules.enabled -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "streamworker.worker" (dict "root" $ "name" $name) | fromJson -}}
{{- $asked = append $asked (eq $worker.autoscaling.mode "hpa") -}}
{{- end -}}
{{- if kindIs "bool" .Values.lagObserver.enabled -}}
{{- ternary "true" "" .Values.lagObserver.enabled -}}
{{- else -}}
{{- ternary "true" "" (has true $asked) -}}
{{- end -}}
{{- end -}}

{{/* The groups of the workers, each once, as JSON. */}}
{{- define "streamworker.groups" -}}
{{- $groups := list -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "streamworker.worker" (dict "root" $ "name" $name) | fromJson -}}
{{- if $worker.group }}{{- $groups = append $groups $worker.group -}}{{- end -}}
{{- end -}}
{{- dict "groups" (uniq $groups) | toJson -}}
{{- end -}}

{{/*
A pod template, metadata and spec: (dict "root" $ "settings" worker "component" "worker" "worker" name "track" "stable"
"container" "worker" "image" image "args" (list …) "configMap" name "config" table), and where they are wanted "annotations",
"ports", "probes", "volumes", "volumeMounts", "grace", "restartPolicy" and "serviceAccount".
*/}}
{{- define "streamworker.podTemplate" -}}
{{- $values := .root.Values -}}
{{- $settings := .settings -}}
{{- $tls := ternary $values.kafka.tls.existingSecret "" $values.kafka.tls.enabled -}}
{{- $sasl := ternary $values.kafka.sasl.existingSecret "" (ne $values.kafka.sasl.mechanism "") -}}
{{- $annotations := dict "checksum/config" (include "streamworker.tomlFile" .config | sha256sum) -}}
{{- with $values.kafka.secretRevision }}{{- $_ := set $annotations "streamworker.dev/secret-revision" . -}}{{- end -}}
metadata:
  labels:
    {{- merge (include "streamworker.selector" . | fromJson) ($settings.podLabels | default dict) $values.commonLabels | toYaml | nindent 4 }}
  annotations:
    {{- merge $annotations (.annotations | default dict) ($settings.podAnnotations | default dict) $values.commonAnnotations | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ .serviceAccount | default (include "streamworker.serviceAccountName" .root) }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- with .grace }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $settings.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $spread := dict "labelSelector" (dict "matchLabels" (include "streamworker.selector" (omit $ "track") | fromJson)) }}
    {{- range . }}
    - {{- merge (deepCopy .) $spread | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with $settings.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: PYTHONUNBUFFERED
          value: "1"
        {{- /* As many arenas of malloc as threads would keep memory that nothing uses. */}}
        - name: MALLOC_ARENA_MAX
          value: "2"
        {{- if and (eq .component "worker") (eq $settings.kind "StatefulSet") }}
        - name: STREAMWORKER__KAFKA__LIBRDKAFKA__GROUP_INSTANCE_ID
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- end }}
        {{- with $settings.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $settings.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .ports }}
      ports:
        {{- range $name, $port := . }}
        - name: {{ $name }}
          containerPort: {{ $port }}
          protocol: TCP
        {{- end }}
      {{- end }}
      {{- with .probes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- with $settings.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $settings.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /etc/streamworker
          readOnly: true
        - name: tmp
          mountPath: /tmp
        {{- if $tls }}
        - name: kafka-tls
          mountPath: /run/secrets/kafka-tls
          readOnly: true
        {{- end }}
        {{- if $sasl }}
        - name: kafka-sasl
          mountPath: /run/secrets/kafka-sasl
          readOnly: true
        {{- end }}
        {{- with .volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $settings.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $settings.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ .configMap }}
    - name: tmp
      emptyDir:
        {{- toYaml ($settings.tmp | default dict) | nindent 8 }}
    {{- if $tls }}
    - name: kafka-tls
      secret:
        secretName: {{ $tls }}
        defaultMode: 0440
    {{- end }}
    {{- if $sasl }}
    - name: kafka-sasl
      secret:
        secretName: {{ $sasl }}
        defaultMode: 0440
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $settings.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The probes of whatever serves /health, as JSON. */}}
{{- define "streamworker.probes" -}}
{{- $probes := dict -}}
{{- range $name, $path := dict "startup" "/health/startup" "liveness" "/health/live" "readiness" "/health/ready" -}}
{{- $probe := merge (dict "httpGet" (dict "path" $path "port" "http")) (get $.probes $name) -}}
{{- $_ := set $probes (printf "%sProbe" $name) $probe -}}
{{- end -}}
{{- toJson $probes -}}
{{- end -}}

{{/* The pod of a worker or of its canary: (dict "root" $ "name" "orders" "track" "stable"). */}}
{{- define "streamworker.workerPod" -}}
{{- $worker := include "streamworker.worker" . | fromJson -}}
{{- $canary := eq .track "canary" -}}
{{- $config := include "streamworker.workerConfig" . | fromJson -}}
{{- $args := concat (list "run") $worker.handlers (list "--config" "/etc/streamworker/streamworker.toml") -}}
{{- if gt (int $worker.processes) 1 }}{{- $args = concat $args (list "--processes" (int $worker.processes | toString)) -}}{{- end -}}
{{- $images := list .root.Values.image $worker.image -}}
{{- if $canary }}{{- $images = append $images $worker.canary.image -}}{{- end -}}
{{- include "streamworker.podTemplate" (dict
    "root" .root
    "settings" $worker
    "component" "worker"
    "worker" .name
    "track" .track
    "container" "worker"
    "image" (include "streamworker.image" (dict "root" .root "images" $images))
    "args" (concat $args $worker.extraArgs)
    "configMap" (printf "%s%s" (include "streamworker.workerName" .) (ternary "-canary" "" $canary))
    "config" $config
    "annotations" (dict "streamworker.dev/group" $worker.group)
    "ports" (dict "http" (include "streamworker.httpPort" .root | int))
    "probes" (include "streamworker.probes" (dict "probes" $worker.probes) | fromJson)
    "grace" (default (include "streamworker.neededGrace" $config | int) $worker.terminationGracePeriodSeconds)
  ) -}}
{{- end -}}

{{/* Its configuration, as JSON. */}}
{{- define "streamworker.workerConfig" -}}
{{- $worker := include "streamworker.worker" . | fromJson -}}
{{- $tables := list $worker.config -}}
{{- if eq .track "canary" }}{{- $tables = concat $tables (list (dict "deployment" (dict "track" "canary")) $worker.canary.config) -}}{{- end -}}
{{- include "streamworker.config" (dict "root" .root "group" $worker.group "tables" $tables) -}}
{{- end -}}
