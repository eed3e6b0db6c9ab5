{{/* Names and labels of objects, and by what pods are selected. What takes more than the root gets a dict. */}}

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
